//! What the readers of this crate must hold for any bytes at all: each function panics where it does not. The fuzz targets in
//! `tests/fuzz` and the property tests below call the same.

use std::{cell::RefCell, fmt::Debug, mem::discriminant, path::PathBuf, rc::Rc, time::Duration};

use amphora_model::MAX_FAULTS;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header::HOST};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    join,
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::{
    PeersConfig,
    client::{ControlSocket, Daemon, Failure},
    places::{Limits, Places},
    proxy,
    server::{self, Answer, MEANINGLESS_BODY, Service},
    vrrp,
};

/// Nothing waits for a clock once its peer has said all that it will, so that this passes only when something hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A control socket's server: the same requests in any cuts, as long as none is refused; no body beyond its bound; every request
/// is answered once, in order; and the connection ends with its peer.
pub fn server(data: &[u8]) {
    let runtime = runtime();
    let whole = runtime.block_on(converse(data, data.len().max(1)));
    for step in [1 + data.len() / 64, 1 + data.len() / 3] {
        let again = runtime.block_on(converse(data, step));
        let common = whole.len().min(again.len());
        assert_eq!(again[..common], whole[..common], "in steps of {step}");
        // What is behind a request that was refused may be read or not.
        let refused = whole.iter().any(|asked| matches!(asked, Asked::Refused(_)));
        assert!(refused || whole.len() == again.len(), "in steps of {step}: {whole:?} and {again:?}");
    }
}

/// What a service was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    ToAnswer(Method, String, Bytes),
    Refused(StatusCode),
}

#[derive(Default)]
struct Witness(RefCell<Vec<Asked>>);

impl Service for Witness {
    const MAX_DOCUMENT: usize = 64;

    async fn answer(&self, method: &Method, path: &str, body: Bytes) -> Answer {
        let bound = if method == Method::PUT { Self::MAX_DOCUMENT } else { MEANINGLESS_BODY };
        assert!(body.len() <= bound);
        let asked = Asked::ToAnswer(method.clone(), path.to_owned(), body);
        let (status, text) = expected(&asked);
        self.0.borrow_mut().push(asked);
        Answer::whole(status, "text/plain", text)
    }

    fn refuse(&self, status: StatusCode, _: &str) -> Answer {
        self.0.borrow_mut().push(Asked::Refused(status));
        Answer::whole(status, "text/plain", "")
    }
}

/// The answer of [`Witness`].
fn expected(asked: &Asked) -> (StatusCode, String) {
    match asked {
        Asked::ToAnswer(method, path, body) => {
            let known = ["GET", "HEAD", "PUT", "POST", "DELETE"].contains(&method.as_str());
            let status = if known { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
            (status, format!("{path} {}", body.len()))
        }
        Asked::Refused(status) => (*status, String::new()),
    }
}

/// Sends the bytes in steps, reads all answers, and compares them with what the service was told.
async fn converse(data: &[u8], step: usize) -> Vec<Asked> {
    let (near, far) = duplex(64 * 1024);
    let witness = Rc::new(Witness::default());
    let places = Places::new(Limits { connections: 1, at_work: 1, kept_for_others: 0 });
    let seat = places.take(Vec::new()).await;
    let serving = server::serve(Rc::clone(&witness), far, seat);
    let both = async { join!(serving, exchange(near, data, step)) };
    let ((), answers) = timeout(HANGS, both).await.expect("a connection whose peer has finished ends");
    let told = witness.0.take();
    let mut answers = answers.as_slice();
    for asked in &told {
        let (status, text) = expected(asked);
        match next_answer(&mut answers) {
            Some((found, length)) => {
                assert_eq!(found, status);
                if !matches!(asked, Asked::ToAnswer(Method::HEAD, ..)) && !text.is_empty() {
                    assert_eq!(length, text.len());
                    answers = answers.strip_prefix(text.as_bytes()).expect("the content of the answer");
                }
            }
            // A body that breaks off takes the connection with it.
            None => assert_eq!(asked, told.last().expect("there is one"), "not answered"),
        }
    }
    // The server's own word on what is no request.
    if let Some((status, length)) = next_answer(&mut answers) {
        assert!(status.is_client_error() && length == 0, "{status}");
    }
    assert!(answers.is_empty(), "{:?}", answers.escape_ascii().to_string());
    told
}

/// The next final head that was written: its status and `Content-Length`.
fn next_answer(answers: &mut &[u8]) -> Option<(StatusCode, usize)> {
    loop {
        let end = answers.windows(4).position(|end| end == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&answers[..end]).expect("a head in ASCII");
        *answers = &answers[end + 4..];
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).expect("a status line");
        let status: StatusCode = status.parse().expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if !status.is_informational() {
            return Some((status, length.map_or(0, |length| length.parse().expect("a length"))));
        }
    }
}

/// The client of a control socket: the same outcome in any cuts of the answer, within its bound, and all that is read as a
/// document comes back from what is written of it.
pub fn client(data: &[u8]) {
    documents(data);
    let runtime = runtime();
    for daemon in [Daemon::Proxy, Daemon::Vrrp] {
        let whole = runtime.block_on(ask(daemon, data, data.len().max(1)));
        for step in [1 + data.len() / 64, 1 + data.len() / 3] {
            let again = runtime.block_on(ask(daemon, data, step));
            let same = match (&whole, &again) {
                (Ok(whole), Ok(again)) => whole == again,
                (Err(whole), Err(again)) => discriminant(whole) == discriminant(again),
                _ => false,
            };
            assert!(same, "{whole:?} and {again:?}, in steps of {step}");
        }
        match &whole {
            Ok(answer) => {
                assert!(answer.len() <= MAX_ANSWER);
                documents(answer);
            }
            Err(Failure::Refused(status, _)) => {
                assert!([400, 409, 503].contains(&status.as_u16()), "{status}");
            }
            Err(Failure::NotRunning(_) | Failure::Late) => panic!("{whole:?}"),
            Err(_) => {}
        }
    }
}

const MAX_ANSWER: usize = 1024;

/// Asks a daemon that says these bytes, in steps, and closes.
async fn ask(daemon: Daemon, data: &[u8], step: usize) -> Result<Bytes, Failure> {
    let (near, far) = duplex(64 * 1024);
    let socket = ControlSocket::new(daemon, PathBuf::new(), MAX_ANSWER);
    let request = Request::get("/").header(HOST, "localhost").body(Full::default());
    let asking = socket.ask(near, request.expect("a request"));
    let both = async { join!(asking, answer(far, data, step)) };
    timeout(HANGS, both).await.expect("a request whose peer is gone ends").0
}

async fn answer(mut stream: DuplexStream, data: &[u8], step: usize) {
    let mut request = [0; 1024];
    // Before it has asked, what comes is no answer.
    if stream.read(&mut request).await.is_ok() {
        exchange(stream, data, step).await;
    }
}

/// Sends the bytes in steps and ends, and reads all that comes meanwhile.
async fn exchange(stream: DuplexStream, data: &[u8], step: usize) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut read = Vec::new();
    let sending = async {
        for piece in data.chunks(step) {
            // The peer may have had enough.
            if writer.write_all(piece).await.is_err() {
                return;
            }
            // It looks at this piece by itself.
            tokio::task::yield_now().await;
        }
        let _ = writer.shutdown().await;
    };
    let _ = join!(sending, reader.read_to_end(&mut read));
    read
}

/// Whatever document it is.
fn documents(body: &[u8]) {
    again::<proxy::Applied>(body);
    again::<proxy::Info>(body);
    again::<proxy::Summary>(body);
    again::<proxy::Stats>(body);
    again::<proxy::Peers>(body);
    again::<proxy::Refusal>(body);
    again::<vrrp::Status>(body);
    again::<vrrp::Refusal>(body);
}

fn again<T: DeserializeOwned + Serialize + PartialEq + Debug>(body: &[u8]) {
    let Ok(document) = serde_json::from_slice::<T>(body) else { return };
    let text = serde_json::to_vec(&document).expect("a document is written");
    assert_eq!(serde_json::from_slice::<T>(&text).ok(), Some(document));
}

/// Who the peer is: what is accepted comes back from what is written of it; what is not has faults, and none of them has the
/// key in it.
pub fn peers_config(data: &[u8]) {
    match PeersConfig::from_json(data) {
        Ok(config) => {
            let key = std::str::from_utf8(&config.key).expect("a key that is text");
            let text = json!({ "peers": { "listen": config.listen, "peer": config.peer, "key": key } });
            assert_eq!(PeersConfig::from_json(text.to_string().as_bytes()), Ok(config));
        }
        Err(refusal) => {
            assert!((1..=MAX_FAULTS + 1).contains(&refusal.faults.len()));
            let text = refusal.to_string();
            for secret in values(data) {
                assert!(!text.contains(&secret), "{text}");
            }
        }
    }
}

/// The strings in a text that might be a key, by their place and length. A name is none, and is told when it is not known.
fn values(data: &[u8]) -> Vec<String> {
    fn collect(value: &Value, names: &mut String, values: &mut Vec<String>) {
        match value {
            // Our own words about addresses have spaces in them.
            Value::String(text) if text.len() >= 16 && !text.contains(' ') => values.push(text.clone()),
            Value::Array(list) => list.iter().for_each(|value| collect(value, names, values)),
            Value::Object(map) => map.iter().for_each(|(name, value)| {
                names.push_str(name);
                names.push('\n');
                collect(value, names, values);
            }),
            _ => {}
        }
    }
    let (mut names, mut values) = (String::new(), Vec::new());
    match serde_json::from_slice(data) {
        Ok(value) => collect(&value, &mut names, &mut values),
        Err(_) => {
            let mut words = data.split(|&byte| byte == b'"').map(String::from_utf8_lossy).peekable();
            while let Some(word) = words.next() {
                if words.peek().is_some_and(|next| next.trim_start().starts_with(':')) {
                    names.push_str(&word);
                    names.push('\n');
                } else if word.len() >= 16 && !word.contains(' ') {
                    values.push(word.into_owned());
                }
            }
        }
    }
    values.retain(|value| !names.contains(value.as_str()));
    values
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// It is in the fault, for whoever wrote it to find.
    #[test]
    fn a_long_name_is_no_secret() {
        peers_config(
            br#"{"peers": {"a_name_of_sixteen": 1, "a_name_of_sixteen": 2, "key" "0123456789abcdef"}}"#,
        );
        peers_config(
            br#"{"a_name_of_sixteen": {"listen": "192.0.2.10.2.11:1020", "key": "0123456789abcdef"}}"#,
        );
    }

    proptest! {
        #[test]
        fn requests(
            text in "((GET|HEAD|PUT|POST|OPTIONS) /[ab]{0,3} HTTP/1.[01]\r\n\
                (host: x\r\n|content-length: [0-9]{1,2}\r\n|transfer-encoding: chunked\r\n|expect: 100-continue\r\n|connection: close\r\n){0,3}\r\n\
                (3\r\nabc\r\n|0\r\n\r\n|[a-z]{0,70})){1,4}",
        ) {
            server(text.as_bytes());
        }

        #[test]
        fn answers(
            head in "HTTP/1.1 (100|101|200|204|400|404|409|413|500|503) x\r\n\
                (content-length: [0-9]{1,4}\r\n|transfer-encoding: chunked\r\n|connection: close\r\n){0,2}\r\n",
            body in "(3\r\nabc\r\n|0\r\n\r\n|\\{\"faults\": ?\\[(\\{\"(path|place)\":\"\",\"reason\":\"x\"\\})?\\]\\}|[a-z]{0,1100}){0,3}",
        ) {
            client(head.repeat(2).as_bytes());
            client((head + &body).as_bytes());
        }

        #[test]
        fn peers(
            text in "\\{\"peers\": ?\\{(\"(listen|peer|key)\": ?(null|1|\"192.0.2.[0-9]:1025\"|\"\\[::[0-9]\\]:1\"|\"[a-z]{14,18}\"),?){0,4}\\}{0,2}",
        ) {
            peers_config(text.as_bytes());
        }
    }
}
