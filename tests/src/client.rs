//! A client that says on the wire exactly what the test says.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    Message, PATIENCE, in_time,
    message::{read_body, read_head},
};

/// A connection to the proxy.
#[derive(Debug)]
pub struct Client {
    /// The connection, for what has no method here.
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed it, after these bytes.
    Closed(Vec<u8>),
    /// The peer reset it.
    Reset,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        match Self::try_connect(address).await {
            Ok(client) => client,
            Err(error) => panic!("connect to {address}: {error}"),
        }
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// As the system says.
    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Connects from this address of the client's.
    pub async fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        Self::try_connect_from(source, address).await.unwrap()
    }

    /// Connects from this address of the client's, or says why not.
    ///
    /// # Errors
    /// As the system says.
    pub async fn try_connect_from(source: IpAddr, address: SocketAddr) -> io::Result<Self> {
        let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = tokio::time::timeout(PATIENCE, socket.connect(address)).await??;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        in_time("the proxy takes the bytes", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends `GET path` and reads the response.
    pub async fn get(&mut self, path: &str) -> Message {
        self.get_with(path, "").await
    }

    /// Sends `GET path` with these header lines (each ends with CR LF) and reads the response.
    pub async fn get_with(&mut self, path: &str, lines: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n")).await;
        self.response().await
    }

    /// Sends `POST path` with a body of known length and reads the response.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> Message {
        let length = body.len();
        self.send(format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {length}\r\n\r\n"))
            .await;
        self.send(body).await;
        self.response().await
    }

    /// Reads a response, interim ones included.
    pub async fn response(&mut self) -> Message {
        in_time("a response", self.try_response(false)).await.expect("a response")
    }

    /// Reads a response to HEAD.
    pub async fn response_to_head(&mut self) -> Message {
        in_time("a response", self.try_response(true)).await.expect("a response")
    }

    /// Reads the head of a response alone.
    pub async fn response_head(&mut self) -> Message {
        let head = read_head(&mut self.stream, &mut self.buffer);
        in_time("a response's head", head).await.expect("a response").expect("a response, not the end")
    }

    /// Reads a response.
    ///
    /// # Errors
    /// As the system says; `UnexpectedEof` when the connection ends before the response's head.
    pub async fn try_response(&mut self, to_head: bool) -> io::Result<Message> {
        let Some(mut message) = read_head(&mut self.stream, &mut self.buffer).await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let status = message.status();
        if to_head || status < 200 || status == 204 || status == 304 {
            message.complete = true;
        } else {
            read_body(&mut message, &mut self.stream, &mut self.buffer, true).await?;
        }
        Ok(message)
    }

    /// A `GET` that says what went wrong instead of failing the test.
    ///
    /// # Errors
    /// As the system says; `UnexpectedEof` for a response that breaks off.
    pub async fn try_get(&mut self, path: &str, lines: &str) -> io::Result<Message> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{lines}\r\n");
        let exchange = async {
            self.stream.write_all(request.as_bytes()).await?;
            let message = self.try_response(false).await?;
            if message.complete { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        };
        tokio::time::timeout(PATIENCE, exchange).await?
    }

    /// Reads exactly these bytes.
    pub async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let read = async {
            while self.buffer.len() < expected.len() {
                if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    break;
                }
            }
        };
        in_time("bytes from the proxy", read).await;
        let n = expected.len().min(self.buffer.len());
        let found: Vec<u8> = self.buffer.drain(..n).collect();
        assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected));
    }

    /// Bytes that have been read and not looked at.
    pub fn leftover(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Closes the client's half.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Waits until the proxy has closed the connection.
    pub async fn end(&mut self) -> End {
        in_time("the end of the connection", async {
            loop {
                match self.stream.read_buf(&mut self.buffer).await {
                    Ok(0) => return End::Closed(std::mem::take(&mut self.buffer)),
                    Ok(_) => {}
                    Err(_) => return End::Reset,
                }
            }
        })
        .await
    }

    /// Whether the connection is closed or reset within `time`.
    pub async fn ends_within(&mut self, time: Duration) -> bool {
        let read = async { while self.stream.read_buf(&mut self.buffer).await.is_ok_and(|n| n > 0) {} };
        tokio::time::timeout(time, read).await.is_ok()
    }

    /// Resets the connection.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
