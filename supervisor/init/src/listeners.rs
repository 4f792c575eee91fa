//! The HTTP listening sockets. Init opens them and its helpers inherit them, so that no health check is
//! refused during a restore, or while a watcher that died is started again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use tracing::warn;

use crate::setup::Listen;

/// Opens the sockets that the settings ask for; none where they ask for none.
pub(super) fn open(settings: &Listen) -> io::Result<Vec<TcpListener>> {
    if settings.port == 0 {
        return Ok(Vec::new());
    }
    let at = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, settings.port));
    let listeners = match (settings.bind, settings.is_protected) {
        (Some(ip), _) => vec![at(ip)?],
        // Without a token nothing but this container may ask.
        (None, false) => loopback(settings.port)?,
        // The IPv6 wildcard takes both kinds; a kernel without IPv6 has only the other.
        (None, true) => match at(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                vec![at(Ipv4Addr::UNSPECIFIED.into())?]
            }
            other => vec![other?],
        },
    };
    // Whoever accepts from them does so without blocking.
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

/// Both addresses that `localhost` may be: which of them a client tries, and whether it tries the other
/// one too, depends on its resolver. One of them is enough where the other does not exist.
fn loopback(port: u16) -> io::Result<Vec<TcpListener>> {
    let at = |ip: IpAddr| TcpListener::bind(SocketAddr::new(ip, port));
    let four = match at(Ipv4Addr::LOCALHOST.into()) {
        // Somebody else has the port, and health checks would reach that one.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
        other => other,
    };
    let six = at(Ipv6Addr::LOCALHOST.into());
    if let (Ok(_), Err(error)) = (&four, &six)
        && error.kind() == io::ErrorKind::AddrInUse
    {
        warn!(target: "init", port, %error, "cannot listen for HTTP on [::1]; going on with 127.0.0.1 alone");
    }
    match (four, six) {
        (Err(error), Err(_)) => Err(error),
        (four, six) => Ok(four.into_iter().chain(six).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(token: Option<&str>, port: u16) -> Listen {
        Listen {
            port,
            bind: None,
            is_protected: token.is_some(),
            guessable: Vec::new(),
            unguessable_len: 0,
        }
    }

    fn addresses(settings: &Listen) -> Vec<IpAddr> {
        let listeners = open(settings).expect("bind");
        let address = |listener: &TcpListener| listener.local_addr().expect("bound").ip();
        listeners.iter().map(address).collect()
    }

    #[test]
    fn without_a_token_only_the_loopback_is_listened_on_and_all_of_it() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let port = free.local_addr().expect("address").port();
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        let has_six = six.is_ok();
        let busy = open(&settings(None, port)).expect_err("the port is taken");
        assert_eq!(busy.kind(), io::ErrorKind::AddrInUse);
        drop(free);
        if has_six {
            let left = addresses(&settings(None, port));
            assert_eq!(
                left,
                [IpAddr::from(Ipv4Addr::LOCALHOST)],
                "the other is taken"
            );
        }
        drop(six);
        let mut loopback = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        if has_six {
            loopback.push(Ipv6Addr::LOCALHOST.into());
        }
        assert_eq!(addresses(&settings(None, port)), loopback);
        let open_to_all = addresses(&settings(Some("t"), port));
        assert!(matches!(open_to_all[..], [one] if one.is_unspecified()));
        assert!(addresses(&settings(None, 0)).is_empty(), "off");
        let chosen = Listen {
            bind: Some(Ipv4Addr::LOCALHOST.into()),
            ..settings(None, port)
        };
        assert_eq!(addresses(&chosen), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }
}
