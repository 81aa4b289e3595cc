//! The server under test: started with a configuration of its own on free
//! ports, waited for, found among the processes, stopped at the end.
//!
//! Whatever happens, a server that was started here does not outlive the
//! value: dropping it ends the whole family of processes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::nginx;
use crate::options::{Service, TargetOptions};
use crate::process;
use crate::secure::{self, Security};
use crate::wire::Wire;
use crate::{Fallible, process::family_of};

/// Where a server hands out its file.
pub const FILE_PATH: &str = "/file.bin";

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(8);

pub struct Target {
    pub label: String,
    /// Where clients of the scenario connect.
    pub address: SocketAddr,
    /// Whether WebSocket frames come back masked, as the floor's echo does.
    pub masked: bool,
    /// How clients connect, if it is over TLS.
    pub security: Option<Security>,
    /// The file that says whom they trust.
    pub authority: Option<PathBuf>,
    roots: Vec<u32>,
    child: Option<Child>,
    site: Option<Site>,
    /// Where Lineman tells its numbers.
    probe: Option<u16>,
}

/// The files of a server that is started here, in a directory of their own,
/// which is removed with it.
pub struct Site {
    directory: PathBuf,
    /// With TLS only.
    pub identity: Option<Identity>,
    service: Service,
}

/// The PEM files that prove who the server is.
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Site {
    fn prepare(options: &TargetOptions, service: Service) -> Fallible<Site> {
        let mut site = Site {
            directory: own_directory()?,
            identity: None,
            service,
        };
        if options.tls.tls {
            let (certificate, key) = (site.path("certificate.pem"), site.path("key.pem"));
            secure::write_identity(&certificate, &key)?;
            site.identity = Some(Identity { certificate, key });
        }
        if let Service::File(bytes) = service {
            fs::write(site.path(&FILE_PATH[1..]), content(bytes))?;
        }
        Ok(site)
    }

    /// A file of it; nothing for the directory itself.
    pub fn path(&self, name: &str) -> PathBuf {
        match name {
            "" => self.directory.clone(),
            name => self.directory.join(name),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What is in the file: no two places of it are alike for long.
pub fn content(bytes: usize) -> Vec<u8> {
    let mut content: Vec<u8> = (0u64..)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(bytes)
        .collect();
    content.shrink_to_fit();
    content
}

impl Target {
    /// Starts, or only finds, the server that `options` name.
    pub fn open(options: &TargetOptions, service: Service) -> Fallible<Target> {
        let mut target = match &options.url {
            Some(url) => attach(url, options)?,
            None => Target::start(options, Site::prepare(options, service)?)?,
        };
        if options.tls.tls {
            let authority = target.authority.as_deref();
            let authority = authority.ok_or("--tls with --url wants --authority")?;
            target.security = Some(Security::new(&options.tls, authority)?);
        }
        Ok(target)
    }

    fn start(options: &TargetOptions, site: Site) -> Fallible<Target> {
        let mut words = options.server.split(',');
        let first = words.next().unwrap_or_default();
        match first.split_once('=').unwrap_or((first, "")) {
            ("floor", _) if options.tls.tls => Err("the floor speaks no TLS".into()),
            ("floor", _) => start_floor(options, site),
            ("lineman", path) => start_lineman(options, path, words, site),
            ("nginx", _) => nginx::start(options, site),
            _ => start_command(options, site),
        }
    }

    /// Starts connecting to it.
    pub fn connect(&self) -> Fallible<Wire> {
        Ok(Wire::connect(self.address, None, self.security.as_ref())?)
    }

    /// The processes to measure: those of the server, found anew each time,
    /// because a supervisor replaces its children.
    pub fn processes(&self) -> Vec<u32> {
        self.roots
            .iter()
            .flat_map(|root| family_of(*root))
            .collect()
    }

    pub fn roots(&self) -> Vec<u32> {
        self.roots.clone()
    }

    /// What the server wrote on its standard error, for an error message.
    pub fn complaints(&self) -> String {
        let path = self.site.as_ref().map(|site| site.path("stderr"));
        let text = path
            .and_then(|path| fs::read_to_string(path).ok())
            .unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Has Lineman replace its workers, which let clients go over
    /// `drain_seconds`.
    pub fn reload(&self) -> Fallible<()> {
        let [master] = self.roots[..] else {
            return Err("only a server of one master can be told to reload".into());
        };
        signal("-USR2", &[master]);
        Ok(())
    }

    /// A counter of Lineman's, summed up over its processes.
    pub fn metric(&self, name: &str) -> Fallible<f64> {
        let port = self.probe.ok_or("only Lineman tells its numbers")?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let rows = text.lines().filter(|row| row.starts_with(name));
        let values = rows.filter_map(|row| row.rsplit(' ').next()?.parse::<f64>().ok());
        let values: Vec<f64> = values.collect();
        match values.is_empty() {
            true => Err(format!("{name} is not among the numbers").into()),
            false => Ok(values.iter().sum()),
        }
    }

    pub fn wait_until(&mut self, ready: impl Fn() -> bool) -> Fallible<()> {
        let started = Instant::now();
        while !ready() {
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => None,
            };
            if ended.is_some() || started.elapsed() > START_LIMIT {
                let how = ended.map_or("did not become ready".into(), |status| status.to_string());
                return Err(format!("{}: {how}\n{}", self.label, self.complaints()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let family = process::family_of(child.id());
            signal("-TERM", &family[..1]);
            let started = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && started.elapsed() < STOP_LIMIT {
                thread::sleep(Duration::from_millis(10));
            }
            if matches!(child.try_wait(), Ok(None)) {
                eprintln!(
                    "{} did not stop within {STOP_LIMIT:?} and is killed",
                    self.label
                );
                signal("-KILL", &family);
                let _ = child.wait();
            }
        }
    }
}

fn attach(url: &str, options: &TargetOptions) -> Fallible<Target> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let address = authority
        .to_socket_addrs()?
        .next()
        .ok_or("the URL names no address")?;
    Ok(Target {
        label: url.to_owned(),
        address,
        masked: false,
        security: None,
        authority: options.tls.authority.clone(),
        roots: options.pid.clone(),
        child: None,
        site: None,
        probe: None,
    })
}

fn start_floor(options: &TargetOptions, site: Site) -> Fallible<Target> {
    let port = free_port()?;
    let this = std::env::current_exe()?;
    let words = [
        this.to_string_lossy().into_owned(),
        "floor".into(),
        "--leashed".into(),
    ];
    let words = [&words[..], &["--port".into(), port.to_string()]].concat();
    let mut target = spawn(options, "floor", &words, port, site)?;
    target.masked = true;
    let address = target.address;
    target.wait_until(|| TcpStream::connect(address).is_ok())?;
    Ok(target)
}

/// Any other server: ready once it accepts connections.
fn start_command(options: &TargetOptions, site: Site) -> Fallible<Target> {
    if !options.server.contains("{port}") {
        return Err("a server's command line has to contain {port}".into());
    }
    let port = free_port()?;
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let mut places = vec![("{port}", port.to_string())];
    if let Some(identity) = &site.identity {
        places.push(("{certificate}", shown(&identity.certificate)));
        places.push(("{key}", shown(&identity.key)));
    }
    let fill_in = |word: &str| {
        let word = word.to_owned();
        places
            .iter()
            .fold(word, |word, (place, value)| word.replace(place, value))
    };
    let words: Vec<String> = options.server.split_whitespace().map(fill_in).collect();
    let mut target = spawn(options, &options.server, &words, port, site)?;
    let address = target.address;
    target.wait_until(|| TcpStream::connect(address).is_ok())?;
    Ok(target)
}

fn start_lineman<'a>(
    options: &TargetOptions,
    path: &str,
    settings: impl Iterator<Item = &'a str>,
    site: Site,
) -> Fallible<Target> {
    let binary = if path.is_empty() {
        default_binary()?
    } else {
        path.to_owned()
    };
    let (mut workers, mut threads) = (1, 1);
    for setting in settings {
        match setting.split_once('=') {
            Some(("workers", value)) => workers = value.parse::<u32>()?,
            Some(("threads", value)) => threads = value.parse::<u32>()?,
            _ => return Err(format!("lineman has no setting {setting:?} here").into()),
        }
    }
    let (port, probe) = (free_port()?, free_port()?);
    let text = format!(
        "{}\nrun_dir = {:?}\nworkers = {workers}\nthreads = {threads}\n\n{}",
        options.set.join("\n"),
        site.path("run"),
        listeners_and_app(options, &site, port, probe)
    );
    fs::create_dir_all(site.path("run"))?;
    let config = site.path("lineman.toml");
    fs::write(&config, text)?;
    let words = [
        binary,
        "start".into(),
        "--config".into(),
        config.to_string_lossy().into_owned(),
    ];
    let mut target = spawn(options, &options.server, &words, port, site)?;
    target.probe = Some(probe);
    target.wait_until(|| answers_ready(probe))?;
    Ok(target)
}

/// The listener that is measured, one that is never TLS to ask whether the
/// server is ready and what it counts, and the app.
fn listeners_and_app(options: &TargetOptions, site: &Site, port: u16, probe: u16) -> String {
    let handler = match site.service {
        Service::Echo => "handler = \"echo\"".to_owned(),
        Service::Channels => "handler = \"channels\"".to_owned(),
        Service::File(_) => format!("handler = \"files\"\nroot = {:?}", site.path("")),
    };
    let (scheme, tls) = match &site.identity {
        None => ("http", String::new()),
        Some(identity) => (
            "https",
            format!(
                "tls = {{ certificate = {:?}, key = {:?} }}\n",
                identity.certificate, identity.key
            ),
        ),
    };
    let TargetOptions {
        app_id,
        app_key,
        app_secret,
        ..
    } = options;
    format!(
        "[[listen]]\nurl = \"{scheme}://127.0.0.1:{port}\"\n{handler}\n{tls}\n\
         [[listen]]\nurl = \"http://127.0.0.1:{probe}\"\nhandler = \"metrics\"\n\n\
         [[apps]]\nid = {app_id:?}\nkey = {app_key:?}\nsecret = {app_secret:?}\n"
    )
}

/// The binary that was built together with this generator.
fn default_binary() -> Fallible<String> {
    option_env!("CARGO_BIN_EXE_lineman")
        .map(str::to_owned)
        .ok_or_else(|| "built without the server: name it with --server lineman=PATH".into())
}

/// Starts `words` on the server's processors.
pub fn spawn(
    options: &TargetOptions,
    label: &str,
    words: &[String],
    port: u16,
    site: Site,
) -> Fallible<Target> {
    let pinned = [
        "taskset".to_owned(),
        "-c".into(),
        options.server_cpus.clone(),
    ];
    let prefix = if options.server_cpus == "any" {
        &[][..]
    } else {
        &pinned[..]
    };
    let words = [prefix, words].concat();
    let child = Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(File::create(site.path("stderr"))?)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", words[0]))?;
    Ok(Target {
        label: label.to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        masked: false,
        security: None,
        authority: site.identity.as_ref().map(|own| own.certificate.clone()),
        roots: vec![child.id()],
        child: Some(child),
        site: Some(site),
        probe: None,
    })
}

/// Pins this process. Servers started later are pinned anew.
pub fn pin_generator(cpus: &str) {
    if cpus == "any" {
        return;
    }
    let pid = std::process::id().to_string();
    let result = Command::new("taskset")
        .args(["-a", "-c", "-p", cpus, &pid])
        .stdout(Stdio::null())
        .status();
    if !result.is_ok_and(|status| status.success()) {
        eprintln!("the generator could not be pinned to processor {cpus}; it runs anywhere");
    }
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill")
        .arg(name)
        .args(pids)
        .stderr(Stdio::null())
        .status();
}

pub fn free_port() -> Fallible<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn own_directory() -> Fallible<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("lineman-load-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

fn answers_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
