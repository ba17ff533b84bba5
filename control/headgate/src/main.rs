//! The binary `headgate`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    headgate::cli::main()
}
