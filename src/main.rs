//! Arguments -> command; boring on purpose.

fn main() -> std::process::ExitCode {
    ecsd::cli::main(std::env::args().skip(1).collect()).into()
}
