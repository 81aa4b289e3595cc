//! Credentials of apps that are given while the server runs: calls about them, and how what is kept
//! comes into use. Owns which revision is in use. Invariants: a credential is sealed before it goes
//! anywhere; no answer and no line of the log holds what it proves itself with; what was answered is
//! in use here, and within moments wherever the database is shared.
//!
//! A call over HTTP comes from an app's backend, which is not trusted with the machine: it may neither
//! say where else credentials are sent to, nor name files, nor use the machine's own identity. An
//! operator may.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::base::names::is_name;
use crate::base::now::{Moment, Now};
use crate::node::courier::Courier;
use crate::node::courier::gateway::sending::Stored;
use crate::node::courier::gateway::{OPERATOR, SHARED_LOOK, Waiting as Waits};
use crate::push::jobs::Job;
use crate::push::providers::credential::Credential;
use crate::push::providers::credential::jobs::{
    APP_MAX, CredentialJob, CredentialOutcome, Kept, KeptCredential, NewCredential, ResealedSecret,
};
use crate::wire::gateway::GatewayCall;

const NAME_BYTES: usize = 64;
/// What only an operator may say.
const OPERATORS: [&str; 7] = [
    "ca_file",
    "base_url",
    "channels_url",
    "token_url",
    "topics_url",
    "resource",
    "identity_header",
];

/// See the file's head.
#[derive(Default)]
pub(super) struct Credentials {
    revision: Option<u64>,
    /// Those that are kept and cannot be used, by app and name, and why.
    unusable: BTreeMap<(String, String), String>,
    is_looking: bool,
    /// When the store is asked for what others have put there.
    look_at: Option<Moment>,
}

/// What is to be done with a job's outcome.
pub(super) enum Waiting {
    Look,
    List(Asker),
    Put(Asker),
    Removed(Asker),
    /// Those that are not sealed with the current key are to be.
    Rotate,
    Rotated,
}

/// Who asks, and for which; an empty name is all.
pub(super) struct Asker {
    ticket: u64,
    app_id: String,
    key: String,
    name: String,
}

impl Courier {
    pub(super) fn take_credential_call(&mut self, ticket: u64, call: &GatewayCall<'_>, now: Now) {
        if self.gateway.devices.vault().is_none() {
            return self.refuse_call(ticket, 503, "There are no token keys");
        }
        let name = call.segments.get(1).copied().unwrap_or_default();
        let asker = Asker {
            ticket,
            app_id: call.app_id.to_string(),
            key: call.key.to_string(),
            name: name.to_string(),
        };
        match (call.method, call.segments.len()) {
            ("GET", 1 | 2) => {
                let job = CredentialJob::Look { since: None };
                self.ask_credentials(job, Waiting::List(asker));
            }
            ("PUT", 2) if !is_name(name, NAME_BYTES) => {
                let why =
                    format!("The name is not 1 to {NAME_BYTES} letters, digits and any of _-=@,.;");
                self.refuse_call(ticket, 400, &why);
            }
            ("PUT", 2) if self.gateway.sending.is_changing() => {
                self.refuse_for_now(ticket, "Too many credentials are being changed");
            }
            ("PUT", 2) => self.put_credential(asker, call.body, now),
            ("DELETE", 2) => {
                let (app_id, name) = (asker.app_id.clone(), asker.name.clone());
                let job = CredentialJob::Remove { app_id, name };
                self.ask_credentials(job, Waiting::Removed(asker));
            }
            (_, 1 | 2) => self.refuse_call(ticket, 405, "This path has no such method"),
            _ => self.refuse_call(ticket, 404, "There is nothing at this path"),
        }
    }

    fn ask_credentials(&mut self, job: CredentialJob, waiting: Waiting) {
        self.ask_job(Job::Credentials(job), Waits::Credentials(waiting));
    }

    fn put_credential(&mut self, asker: Asker, body: &[u8], now: Now) {
        let is_operators = asker.ticket & OPERATOR > 0;
        let read = read_body(body, is_operators);
        let (text, credential) = match read {
            Ok(read) => read,
            Err(why) => return self.refuse_call(asker.ticket, 400, &why),
        };
        let whose = (asker.app_id.as_str(), asker.name.as_str());
        let vault = self.gateway.devices.vault();
        let vault = vault.expect("calls are refused without one");
        let sealed = vault.seal_secret(whose, &text, &mut self.dice);
        let new = NewCredential {
            app_id: asker.app_id.clone(),
            name: asker.name.clone(),
            family: credential.family(),
            is_operators,
            sealed,
        };
        let (credential, now_ms) = (Box::new(new), now.unix_ms);
        let job = CredentialJob::Put { credential, now_ms };
        self.ask_credentials(job, Waiting::Put(asker));
    }

    pub(super) fn take_credential_outcome(
        &mut self,
        waiting: Waiting,
        outcome: CredentialOutcome,
        now: Now,
    ) {
        if let CredentialOutcome::Impossible(why) = &outcome {
            log::error!("credentials: the store could not do what was asked: {why}");
        }
        match (waiting, outcome) {
            (Waiting::Look, outcome) => {
                let credentials = &mut self.gateway.credentials;
                credentials.is_looking = false;
                let is_lost = matches!(outcome, CredentialOutcome::Impossible(_));
                if self.gateway.is_shared || is_lost {
                    credentials.look_at = Some(now.moment + SHARED_LOOK);
                }
                if let CredentialOutcome::Kept(kept) = outcome {
                    self.use_credentials(&kept, now);
                }
            }
            (Waiting::List(asker), CredentialOutcome::Kept(kept)) => {
                self.use_credentials(&kept, now);
                self.list_credentials(&asker, &kept);
            }
            (Waiting::Put(asker), CredentialOutcome::Put { is_new, kept }) => {
                self.use_credentials(&kept, now);
                self.audit_credential(&asker, "put");
                let status = if is_new { 201 } else { 200 };
                let told = kept.all.iter().find(|it| asker.is_about(it));
                let told = told.map(|it| self.tell_kept(it)).unwrap_or_default();
                self.answer_call(asker.ticket, status, &told.to_string());
            }
            (Waiting::Removed(asker), CredentialOutcome::Removed(kept)) => {
                self.use_credentials(&kept, now);
                self.audit_credential(&asker, "removed");
                self.answer_call(asker.ticket, 200, "{}");
            }
            (Waiting::Rotate, CredentialOutcome::Kept(kept)) => self.reseal_credentials(&kept),
            (Waiting::Rotate | Waiting::Rotated, _) => self.end_rotation(),
            (Waiting::List(asker) | Waiting::Put(asker) | Waiting::Removed(asker), outcome) => {
                let (status, why) = reason(&outcome);
                self.refuse_call(asker.ticket, status, &why);
            }
        }
    }

    fn audit_credential(&self, asker: &Asker, what: &str) {
        let (app, key, credential) = (&*asker.app_id, &*asker.key, &*asker.name);
        log::info!(app, key, credential; "credential {what}");
    }

    /// Before anything is sent.
    pub(super) fn begin_credentials(&mut self, now: Now) {
        self.gateway.credentials.look_at = Some(now.moment);
        self.look_for_credentials(now);
    }

    pub(in crate::node::courier) fn look_for_credentials(&mut self, now: Now) {
        let credentials = &mut self.gateway.credentials;
        let is_due = credentials.look_at.is_some_and(|at| at <= now.moment);
        if is_due && !credentials.is_looking {
            credentials.is_looking = true;
            credentials.look_at = None;
            let since = credentials.revision;
            self.ask_credentials(CredentialJob::Look { since }, Waiting::Look);
        }
    }

    pub(in crate::node::courier) fn credentials_deadline(&self) -> Option<Moment> {
        self.gateway.credentials.look_at
    }

    /// Takes what is kept into use, unless it is already.
    fn use_credentials(&mut self, kept: &Kept, now: Now) {
        // A look may have been overtaken by a change.
        if self
            .gateway
            .credentials
            .revision
            .is_some_and(|known| known >= kept.revision)
        {
            return;
        }
        let Some(vault) = self.gateway.devices.vault() else {
            return;
        };
        let (mut usable, mut unusable) = (Vec::new(), BTreeMap::new());
        for one in &kept.all {
            if self.apps.by_id(&one.app_id).is_none() {
                continue;
            }
            let opened = vault.open_secret((&one.app_id, &one.name), &one.sealed);
            let read = opened.map_err(|fault| fault.text());
            match read.and_then(|text| read_body(text.as_bytes(), true)) {
                Ok((_, credential)) => usable.push(Stored {
                    app_id: one.app_id.clone(),
                    name: one.name.clone(),
                    is_strangers: !one.is_operators,
                    credential,
                }),
                Err(why) => {
                    let (app, credential) = (&*one.app_id, &*one.name);
                    log::error!(app, credential; "the credential cannot be used: {why}");
                    unusable.insert((one.app_id.clone(), one.name.clone()), why);
                }
            }
        }
        let credentials = &mut self.gateway.credentials;
        credentials.revision = Some(kept.revision);
        credentials.unusable = unusable;
        self.replace_posts(usable, now);
    }

    fn list_credentials(&mut self, asker: &Asker, kept: &Kept) {
        let own = kept.all.iter().filter(|it| it.app_id == asker.app_id);
        if !asker.name.is_empty() {
            let found = own.into_iter().find(|it| asker.is_about(it));
            return match found.map(|it| self.tell_kept(it)) {
                Some(told) => self.answer_call(asker.ticket, 200, &told.to_string()),
                None => self.refuse_call(asker.ticket, 404, NO_SUCH),
            };
        }
        let mut all: Vec<Value> = own.map(|it| self.tell_kept(it)).collect();
        let configured = self.gateway.sending.configured(&asker.app_id);
        for (credential, used_for) in configured {
            let mut told = credential.about.clone();
            told.insert("name".into(), Value::Null);
            told.insert("source".into(), "configuration".into());
            told.insert("used_for".into(), used_for.into());
            all.push(told.into());
        }
        let answer = json!({ "credentials": all });
        self.answer_call(asker.ticket, 200, &answer.to_string());
    }

    /// What may be told of a credential that is kept.
    fn tell_kept(&self, one: &KeptCredential) -> Value {
        let in_use = self.gateway.sending.stored(&one.app_id, &one.name);
        let (mut told, used_for) = match in_use {
            Some((credential, used_for)) => (credential.about.clone(), used_for),
            None => (Map::new(), Vec::new()),
        };
        let source = if one.is_operators { "operator" } else { "api" };
        told.insert("name".into(), one.name.as_str().into());
        told.insert("source".into(), source.into());
        told.insert("used_for".into(), used_for.into());
        told.insert("created_ms".into(), one.created_ms.into());
        told.insert("updated_ms".into(), one.updated_ms.into());
        let whose = (one.app_id.clone(), one.name.clone());
        if let Some(why) = self.gateway.credentials.unusable.get(&whose) {
            told.insert("error".into(), why.as_str().into());
        }
        told.into()
    }

    /// The devices of a rotation are done: now the credentials, which are few.
    pub(super) fn rotate_credentials(&mut self) {
        let job = CredentialJob::Look { since: None };
        self.ask_credentials(job, Waiting::Rotate);
    }

    fn reseal_credentials(&mut self, kept: &Kept) {
        let Some(vault) = self.gateway.devices.vault() else {
            return;
        };
        let mut rows = Vec::new();
        let outdated = kept.all.iter();
        for one in outdated.filter(|it| !vault.is_current_secret(&it.sealed)) {
            let (app, credential) = (&*one.app_id, &*one.name);
            match vault.open_secret((app, credential), &one.sealed) {
                Ok(text) => rows.push(ResealedSecret {
                    app_id: one.app_id.clone(),
                    name: one.name.clone(),
                    was: one.sealed.clone(),
                    sealed: vault.seal_secret((app, credential), &text, &mut self.dice),
                }),
                Err(fault) => {
                    log::error!(app, credential; "the credential does not open: {}", fault.text());
                }
            }
        }
        self.ask_credentials(CredentialJob::Reseal(rows), Waiting::Rotated);
    }
}

impl Asker {
    fn is_about(&self, one: &KeptCredential) -> bool {
        one.app_id == self.app_id && one.name == self.name
    }
}

const NO_SUCH: &str = "There is no such credential";

fn reason(outcome: &CredentialOutcome) -> (u16, String) {
    match outcome {
        CredentialOutcome::Unknown => (404, NO_SUCH.to_string()),
        CredentialOutcome::Conflict(name) => {
            let why = format!("The app has another credential for these devices: {name}");
            (409, why)
        }
        CredentialOutcome::Full => (
            409,
            format!("The app has {APP_MAX} credentials, or all have too many"),
        ),
        _ => (500, "The store cannot keep or find this".to_string()),
    }
}

/// A credential out of a JSON object, and the text that is kept of it. An error quotes no secret.
fn read_body(body: &[u8], is_operators: bool) -> Result<(Zeroizing<String>, Credential), String> {
    let read: Result<Map<String, Value>, _> = serde_json::from_slice(body);
    let fields = read.map_err(|_| "The body is no JSON object".to_string())?;
    if let Some(name) = OPERATORS
        .iter()
        .find(|name| !is_operators && fields.contains_key(**name))
    {
        return Err(format!(
            "{name}: only an operator at the machine may say it"
        ));
    }
    let credential = Credential::parse(&fields)?;
    if !is_operators && credential.is_of_machine() {
        return Err(
            "client_secret: it is missing, and the machine's own identity is its operator's"
                .to_string(),
        );
    }
    let text =
        serde_json::to_string(&fields).map_err(|_| "The body is no JSON object".to_string())?;
    Ok((Zeroizing::new(text), credential))
}
