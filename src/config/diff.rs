//! What a new configuration changes for a server that runs with another one. Owns which settings
//! can change then and which need a restart; does not carry anything out. Pure.

use crate::config::{Config, webhooks};

/// Names of settings that differ and that a running server cannot take up.
pub fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut compare = |differs: bool, name| {
        if differs {
            names.push(name);
        }
    };
    compare(old.workers != new.workers, "workers");
    compare(old.threads != new.threads, "threads");
    compare(old.run_dir != new.run_dir, "run_dir");
    compare(old.user != new.user, "user");
    compare(old.group != new.group, "group");
    compare(old.log.file != new.log.file, "log.file");
    compare(
        old.listen.len() != new.listen.len(),
        "the number of [[listen]] tables",
    );
    let mut both = old.listen.iter().zip(&new.listen);
    compare(both.any(|(old, new)| old.url != new.url), "listen.url");
    let mut both = old.listen.iter().zip(&new.listen);
    compare(
        both.any(|(old, new)| old.workers != new.workers),
        "listen.workers",
    );
    compare(old.store_dir != new.store_dir, "store.dir");
    compare(
        old.postgres != new.postgres,
        "store.url and what belongs to it",
    );
    let comes_or_goes = old.has_courier() != new.has_courier();
    compare(
        comes_or_goes,
        "push, or the first or last [[apps.webhooks]]",
    );
    compare(old.cluster != new.cluster, "cluster");
    names
}

/// Whether the switchboard, and the courier if there is one, have to know: they are replaced only
/// then, since everybody waits for them meanwhile.
pub fn concerns_switchboard(old: &Config, new: &Config) -> bool {
    let webhooks = webhooks::differ((&old.webhooks, &old.apps), (&new.webhooks, &new.apps));
    let history = old.history != new.history;
    let push = old.push != new.push || old.credentials != new.credentials;
    old.limits != new.limits || old.log != new.log || history || webhooks || push
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load::parse;
    use crate::config::program::Program;
    use crate::config::secret::no_secrets;

    fn config(text: &str) -> Config {
        let text = format!("workers = 2\n{text}");
        parse(&text, "t", Path::new("/"), &Program::default(), &no_secrets).unwrap()
    }

    const A: &str = "[[listen]]\nurl = \"http://127.0.0.1:1\"\nhandler = \"echo\"\n";
    const B: &str = "[[listen]]\nurl = \"http://127.0.0.1:2\"\nhandler = \"echo\"\n";

    #[test]
    fn what_cannot_change_is_named() {
        let old = config(A);
        assert!(fixed(&old, &old).is_empty());
        assert_eq!(fixed(&old, &config(B)), ["listen.url"]);
        let fewer = format!("{A}workers = 1\nconnections = 5\n");
        assert_eq!(fixed(&old, &config(&fewer)), ["listen.workers"]);
        assert_eq!(
            fixed(
                &old,
                &config(&format!("threads = 2\nrun_dir = \"x\"\n{A}{B}"))
            ),
            ["threads", "run_dir", "the number of [[listen]] tables"]
        );
    }

    #[test]
    fn an_app_or_a_handler_is_no_business_of_the_switchboard_but_a_limit_or_a_history_is() {
        let old = config(A);
        let handler = config(&format!("[limits]\nactivity_seconds = 119\n{A}"));
        assert!(concerns_switchboard(&old, &handler));
        let app = format!("{A}[[apps]]\nid = \"a\"\nkey = \"b\"\nsecret = \"c\"\n");
        assert!(!concerns_switchboard(&old, &config(&app)));
        let history = format!("{app}[[apps.history]]\npattern = \"*\"\n");
        assert!(concerns_switchboard(&config(&app), &config(&history)));
        assert!(fixed(&old, &config(&app)).is_empty());
    }
}
