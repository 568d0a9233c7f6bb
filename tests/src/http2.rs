//! A client of HTTP/2 with prior knowledge, on the crate `h2`.

use std::{future::poll_fn, net::SocketAddr};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, Request, Response, Version};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

use crate::in_time;

/// A connection, on which streams are opened.
#[derive(Debug)]
pub struct Http2Client {
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// What came for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status; `None` when the stream ended before it.
    pub status: Option<u16>,
    /// The fields of the head.
    pub fields: HeaderMap,
    /// The data.
    pub body: Vec<u8>,
    /// Behind it.
    pub trailers: Option<HeaderMap>,
    /// Why the stream was reset, if it was.
    pub reset: Option<Reason>,
}

impl Answer {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A request of this method and path to `http://a`.
pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("http://a{path}"))
        .version(Version::HTTP_2)
        .body(())
        .unwrap()
}

impl Http2Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = in_time("connecting", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, &client::Builder::new()).await
    }

    /// On a connection that is there, with settings.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        builder: &client::Builder,
    ) -> Self {
        let (send, connection) = in_time("the handshake", builder.handshake(stream)).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Begins a request.
    pub async fn begin(&mut self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = in_time("room for a stream", self.send.clone().ready()).await.unwrap();
        let begun = send.send_request(request, end).unwrap();
        self.send = send;
        begun
    }

    /// Whether the server allows extended CONNECT.
    pub fn has_extended_connect(&self) -> bool {
        self.send.is_extended_connect_protocol_enabled()
    }

    /// A request without a body.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask(request("GET", path), None, None).await
    }

    /// A request, and all that comes for it.
    pub async fn ask(
        &mut self,
        request: Request<()>,
        body: Option<&[u8]>,
        trailers: Option<HeaderMap>,
    ) -> Answer {
        let end = body.is_none() && trailers.is_none();
        let (response, mut stream) = self.begin(request, end).await;
        let sending = async {
            if let Some(body) = body {
                send_all(&mut stream, body, trailers.is_none()).await;
            }
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(trailers);
            }
        };
        let ((), answer) = tokio::join!(sending, answer(response));
        answer
    }

    /// How the connection ends.
    pub async fn end(self) -> Result<(), h2::Error> {
        let Self { send, connection } = self;
        drop(send);
        in_time("the end of the connection", connection).await.unwrap()
    }
}

/// Sends data as the windows allow, until it is through or the stream has ended.
pub async fn send_all(stream: &mut SendStream<Bytes>, mut data: &[u8], end: bool) {
    loop {
        stream.reserve_capacity(data.len());
        let n = if data.is_empty() {
            0
        } else {
            match in_time("room for data", poll_fn(|cx| stream.poll_capacity(cx))).await {
                Some(Ok(_)) => stream.capacity().min(data.len()),
                _ => return,
            }
        };
        let (piece, rest) = data.split_at(n);
        data = rest;
        let last = data.is_empty();
        if stream.send_data(Bytes::copy_from_slice(piece), last && end).is_err() || last {
            return;
        }
    }
}

/// All that comes for a request.
pub async fn answer(response: ResponseFuture) -> Answer {
    let mut answer =
        Answer { status: None, fields: HeaderMap::new(), body: Vec::new(), trailers: None, reset: None };
    let head: Response<RecvStream> = match in_time("a response", response).await {
        Ok(head) => head,
        Err(error) => {
            answer.reset = error.reason();
            return answer;
        }
    };
    let (parts, mut body) = head.into_parts();
    answer.status = Some(parts.status.as_u16());
    answer.fields = parts.headers;
    while let Some(data) = in_time("data", body.data()).await {
        match data {
            Ok(data) => {
                answer.body.extend_from_slice(&data);
                let _ = body.flow_control().release_capacity(data.len());
            }
            Err(error) => {
                answer.reset = error.reason();
                return answer;
            }
        }
    }
    match in_time("trailers", body.trailers()).await {
        Ok(trailers) => answer.trailers = trailers,
        Err(error) => answer.reset = error.reason(),
    }
    answer
}
