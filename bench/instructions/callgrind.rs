//! Callgrind around this very program, once for each path: only what is called through `counted_turn`
//! is collected.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What Callgrind says before the sum.
const COLLECTED: &str = "Collected : ";

/// Instructions for each operation of each path, which is taken so many times.
pub fn count(word: &str, paths: &[(&str, u64)]) -> Result<Vec<u64>, String> {
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(vec![Ok(0); paths.len()]));
    let threads = thread::available_parallelism().map_or(1, |it| it.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((name, times)) = paths.get(index) else {
                        break;
                    };
                    let count = count_one(word, name).map(|sum| sum.div_ceil(*times));
                    counts.lock().expect("nobody died")[index] = count;
                }
            });
        }
    });
    let counts = counts.into_inner().expect("nobody died");
    counts.into_iter().collect()
}

fn count_one(word: &str, name: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new(std::env::var("VALGRIND").unwrap_or("valgrind".into()));
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--toggle-collect=*counted_turn*", "--"])
        .arg(program)
        .args([word, name])
        // What stands in the environment moves the stack.
        .env_clear()
        .stdin(Stdio::null());
    let output = valgrind
        .output()
        .map_err(|error| format!("valgrind: {error} (Debian: apt-get install valgrind)"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let sum = told.lines().find_map(|line| line.split(COLLECTED).nth(1));
    let sum = sum.and_then(|sum| sum.split_whitespace().next()?.parse().ok());
    match (output.status.success(), sum) {
        (true, Some(sum)) if sum > 0 => Ok(sum),
        _ => Err(format!("{name}: {}\n{told}", output.status)),
    }
}

/// Who made the program, for which machine: others make other instructions.
pub fn compiler() -> Result<String, String> {
    let rustc = std::env::var("RUSTC").unwrap_or("rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .map_err(|error| format!("rustc: {error}"))?;
    let told = String::from_utf8_lossy(&output.stdout);
    let field = |name| told.lines().find_map(|line| line.strip_prefix(name));
    match (field("release: "), field("host: ")) {
        (Some(release), Some(host)) => Ok(format!("rustc {release}, {host}")),
        _ => Err(format!("rustc -vV says: {told}")),
    }
}
