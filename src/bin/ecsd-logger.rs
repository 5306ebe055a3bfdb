//! The log writer of one container: started by the containerd shim, it lives as long as the
//! container's output does, through restarts of the agent and of containerd. See `ecsd::logs`.

fn main() -> std::process::ExitCode {
    ecsd::logs::writer::main(std::env::args().skip(1))
}
