//! The program: `lineman` itself, which embeds nothing but what every server has.

use std::process::ExitCode;

use lineman::app::service::Services;
use lineman::config::program::Program;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lineman::cli::run(&Program::default(), &Services::default())
}
