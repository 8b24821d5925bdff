//! A TCP port and the stream that is published through it, as people write it: `cam=127.0.0.1:9000`.

use crate::live::streams;
use serde::{Deserialize, Deserializer, de};
use std::net::SocketAddr;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpStream {
    pub name: String,
    pub address: SocketAddr,
}

impl FromStr for TcpStream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a name and an address; write cam=127.0.0.1:9000");
        let (name, address) = text.split_once('=').ok_or_else(wrong)?;
        let (name, address) = (name.trim(), address.trim().parse().map_err(|_| wrong())?);
        if !streams::is_name(name) {
            return Err(format!("{name:?}: {}", streams::NAME_RULE));
        }
        Ok(Self { name: name.to_owned(), address })
    }
}

impl<'de> Deserialize<'de> for TcpStream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let stream: TcpStream = "cam=127.0.0.1:9000".parse().expect("well-formed");
        assert_eq!((stream.name.as_str(), stream.address), ("cam", SocketAddr::from(([127, 0, 0, 1], 9000))));
        for bad in ["", "cam", "cam=9000", "=127.0.0.1:9000", "../x=127.0.0.1:9000", "stream=127.0.0.1:9000"] {
            assert!(bad.parse::<TcpStream>().is_err(), "{bad}");
        }
    }
}
