//! A client of Octavia's API on one connection, and what one of HTTP gets of a VIP.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use amphora_benches::Result;
use serde_json::{Value, json};

/// How long whatever is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `serve` has its API.
const ADDRESS: &str = "127.0.0.1:9876";

/// The address of the host in the network of load balancers, where members are.
pub(crate) const HOST: &str = "10.20.0.1";

/// A connection that is kept.
pub(crate) struct Api {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Api {
    /// Connects, and waits for it where there is nobody yet.
    pub(crate) fn connect() -> Result<Self> {
        let begin = Instant::now();
        loop {
            match TcpStream::connect(ADDRESS) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    return Ok(Self { stream, read: Vec::new() });
                }
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Asks for something below `/v2/`: status and body, as they came.
    pub(crate) fn exchange(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
        let head = format!(
            "{method} /v2/{path} HTTP/1.1\r\nHost: serve\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all((head + body).as_bytes())?;
        let mut buffer = [0; 65_536];
        loop {
            if let Some((status, from, length)) = self.head()?
                && self.read.len() >= from + length
            {
                let body = self.read[from..from + length].to_vec();
                self.read.drain(..from + length);
                return Ok((status, body));
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err("the API closed the connection".into()),
                count => self.read.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Status, where the body begins and its length, once the head is there.
    fn head(&self) -> Result<Option<(u16, usize, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(from) = response.parse(&self.read)? else { return Ok(None) };
        let length =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = match length {
            Some(header) => std::str::from_utf8(header.value)?.parse()?,
            None => 0,
        };
        Ok(Some((response.code.unwrap_or_default(), from, length)))
    }

    /// The same, which has to succeed.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.exchange(method, path, &text)?;
        if !(200..300).contains(&status) {
            let answer = String::from_utf8_lossy(&answer);
            return Err(format!("{method} {path}: {status} {answer}").into());
        }
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Asks for a load balancer with a listener, a pool and a member. Returns once that is answered.
    pub(crate) fn create(&mut self, subnet: &Value, name: &str) -> Result<Made> {
        let body = json!({"loadbalancer": {"name": name, "vip_subnet_id": subnet, "listeners": [{
            "protocol": "HTTP", "protocol_port": 80, "default_pool": {
                "name": "pool",
                "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": [member(0)],
            },
        }]}});
        let answer = self.ask("POST", "lbaas/loadbalancers", &body)?;
        let lb = &answer["loadbalancer"];
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("an answer without a name");
        Ok(Made {
            id: text(&lb["id"])?,
            pool: text(&lb["pools"][0]["id"])?,
            vip: SocketAddr::new(text(&lb["vip_address"])?.parse()?, 80),
        })
    }

    /// Waits until it is ACTIVE.
    pub(crate) fn active(&mut self, made: &Made) -> Result<()> {
        let path = format!("lbaas/loadbalancers/{}", made.id);
        wait(|| Ok(self.ask("GET", &path, &Value::Null)?["loadbalancer"]["provisioning_status"] == "ACTIVE"))
    }

    /// Deletes it, and waits until it is gone.
    pub(crate) fn delete(&mut self, made: &Made) -> Result<()> {
        let path = format!("lbaas/loadbalancers/{}", made.id);
        self.ask("DELETE", &format!("{path}?cascade=true"), &Value::Null)?;
        wait(|| Ok(self.exchange("GET", &path, "")?.0 == 404))
    }
}

/// A load balancer.
pub(crate) struct Made {
    /// Its id.
    pub(crate) id: String,
    /// Its pool's.
    pub(crate) pool: String,
    /// Where its listener is.
    pub(crate) vip: SocketAddr,
}

/// The `n`th member, as in a body.
pub(crate) fn member(n: usize) -> Value {
    json!({"address": HOST, "protocol_port": 8000 + n})
}

/// Waits until something is so.
pub(crate) fn wait(mut found: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !found()? {
        if begin.elapsed() > PATIENCE {
            return Err("waited for a minute, in vain".into());
        }
        thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// Who answers a request at an address: the number of the member.
pub(crate) fn who(vip: SocketAddr) -> Option<usize> {
    let mut stream = TcpStream::connect_timeout(&vip, Duration::from_millis(200)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.parse().ok()).flatten()
}
