//! Where archives are kept: a MongoDB database, or one SQLite file. Each is a module that implements
//! [`Store`](sessionkeep_archive::store::Store), whose comments are the contract, and is held to it by the
//! contract suite of `sessionkeep-archive`.

pub mod mongo;
mod open;
pub mod sqlite;

pub use mongo::{DEFAULT_DATABASE, MongoStore};
pub use open::{StoreChoice, open};
pub use sqlite::SqliteStore;
