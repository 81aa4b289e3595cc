//! Which store the courier gets: a file of its own, or the PostgreSQL of the configuration. Opens
//! neither.

use std::path::PathBuf;

use crate::config::Config;
use crate::config::store::Postgres;
use crate::net::client_tls;
use crate::net::sockets::StartStore;
use crate::run::role::seed;
use crate::store::postgres::{self, Host, PostgresOptions};
use crate::store::sqlite;
use crate::wire::target::ClientTls;

/// `path`: of the file, when it is one. Fails if the authorities of the database cannot be read.
pub fn start(path: Option<PathBuf>, config: &Config) -> Result<StartStore, String> {
    if let Some(place) = &config.postgres {
        let options = options(place)?;
        return Ok(Box::new(|waker| {
            Ok(Box::new(postgres::start(options, waker)?))
        }));
    }
    let path = path.ok_or("no path for the database")?;
    Ok(Box::new(|waker| Ok(Box::new(sqlite::start(path, waker)?))))
}

fn options(place: &Postgres) -> Result<PostgresOptions, String> {
    let target = &place.target;
    let tls = target.scheme().is_secured();
    let tls = tls
        .then(|| client_tls::prepare(target, &ClientTls::default()))
        .transpose()?;
    let password = place.password.as_ref();
    Ok(PostgresOptions {
        host: match target.host() {
            "" => Host::Sockets(PathBuf::from(target.path_and_query())),
            name => Host::Name(name.to_string()),
        },
        port: place.port,
        database: place.database.clone(),
        user: place.user.clone(),
        password: password.map(|it| it.expose().to_string()),
        tls: tls.map(|(config, _)| config),
        server: place.server.clone(),
        seed: seed()?,
    })
}
