//! A request's bytes as the policies' evaluator sees them, for comparing the evaluator alone.

use amphora_proxy::l7::{RequestFacts, normalized_host};

pub(crate) struct Facts {
    target: Vec<u8>,
    path_and_query: Vec<u8>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Facts {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(bytes).ok().filter(|status| status.is_complete())?;
        let target = request.path?;
        let path_and_query = match target.split_once("://") {
            _ if target.starts_with('/') => target,
            Some((_, rest)) => rest.find(['/', '?']).map_or("", |at| &rest[at..]),
            None => "",
        };
        let fields = request.headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect();
        Some(Self {
            target: target.as_bytes().to_vec(),
            path_and_query: path_and_query.as_bytes().to_vec(),
            fields,
        })
    }
}

impl RequestFacts for Facts {
    fn path_and_query(&self) -> &[u8] {
        &self.path_and_query
    }

    fn normalized_host(&self) -> Option<&[u8]> {
        normalized_host(&self.target)
    }

    fn header_count(&self) -> usize {
        self.fields.len()
    }

    fn header(&self, index: usize) -> (&[u8], &[u8]) {
        let (name, value) = &self.fields[index];
        (name, value)
    }
}
