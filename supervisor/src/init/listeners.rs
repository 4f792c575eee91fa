//! The HTTP listening socket. Init opens it and its helpers inherit it, so that no health check is
//! refused during a restore, or while a watcher that died is started again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::config::HttpSettings;

/// Opens the socket that the settings ask for; `None` where they ask for none.
pub(super) fn open(settings: &HttpSettings) -> io::Result<Option<TcpListener>> {
    if settings.port == 0 {
        return Ok(None);
    }
    let at = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, settings.port));
    let listener = match (settings.bind, settings.is_protected()) {
        (Some(ip), _) => at(ip)?,
        // Without a token nothing but this container may ask.
        (None, false) => at(Ipv4Addr::LOCALHOST.into())?,
        // The IPv6 wildcard takes both kinds; a kernel without IPv6 has only the other.
        (None, true) => match at(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                at(Ipv4Addr::UNSPECIFIED.into())?
            }
            other => other?,
        },
    };
    // Whoever accepts from it does so without blocking.
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn without_a_token_only_the_loopback_is_listened_on() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = free.local_addr().expect("address").port();
        let settings = |token: Option<&str>, port| HttpSettings {
            port,
            bind: None,
            token: token.map(Secret::new),
            username: "admin".into(),
            password: None,
        };
        let busy = open(&settings(None, port)).expect_err("the port is taken");
        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
        drop(free);
        let address = |token| {
            let listener = open(&settings(token, port)).expect("bind").expect("port");
            listener.local_addr().expect("address").ip()
        };
        assert!(address(None).is_loopback());
        assert!(address(Some("t")).is_unspecified());
        assert!(open(&settings(None, 0)).expect("off").is_none());
    }
}
