//! What must survive a crash, on the disk. Blocking libraries on named threads, reached over bounded
//! queues; knows neither nodes nor sockets, only `push/facts`.

pub mod sqlite;
