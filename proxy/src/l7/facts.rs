//! A parsed request head as [`RequestFacts`].

use super::{RequestFacts, normalized_host, target_host};
use crate::http::{Known, RequestView};

impl RequestFacts for RequestView<'_> {
    #[inline]
    fn path_and_query(&self) -> &[u8] {
        RequestView::path_and_query(self).unwrap_or_default()
    }

    #[inline]
    fn normalized_host(&self) -> Option<&[u8]> {
        if self.has(Known::Host) { normalized_host(self.target()) } else { target_host(self.target()) }
    }

    #[inline]
    fn header_count(&self) -> usize {
        self.field_count()
    }

    #[inline]
    fn header(&self, index: usize) -> (&[u8], &[u8]) {
        self.field(index)
    }
}
