//! A parsed request head as [`RequestFacts`].

use super::{RequestFacts, normalized_host};
use crate::http1::RequestView;

impl RequestFacts for RequestView<'_> {
    #[inline]
    fn path_and_query(&self) -> &[u8] {
        RequestView::path_and_query(self).unwrap_or_default()
    }

    #[inline]
    fn normalized_host(&self) -> Option<&[u8]> {
        normalized_host(self.target())
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
