//! The line between an instance and the store: a proxy in front of a world's database, with a
//! runtime to run in.

use std::net::SocketAddr;

use super::keeper::World;
use super::proxy::{Mode, Proxy};

/// A line that can be troubled.
pub(crate) struct Line {
    /// The world's address, by way of this line.
    pub(crate) url: String,
    proxy: Proxy,
    _runtime: tokio::runtime::Runtime,
}

impl Line {
    /// To the database of a world whose store is a mongod. It passes everything.
    pub(crate) fn to(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (_, rest) = world.url.split_once("://").expect("a URL");
        let (host, database) = rest.split_once('/').expect("a database");
        let target: SocketAddr = host.parse().expect("an address");
        let proxy = runtime.block_on(Proxy::start(target));
        let url = format!("mongodb://127.0.0.1:{}/{database}", proxy.port());
        Self {
            url,
            proxy,
            _runtime: runtime,
        }
    }

    /// Changes what it does, also to connections that are open.
    pub(crate) fn set(&self, mode: Mode) {
        self.proxy.set(mode);
    }
}
