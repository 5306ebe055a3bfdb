//! Compiles the protobuf messages that the `containerd-client` crate lacks (see `proto/`), and the small
//! static program that is PID 1 where one of ours has to be (see `src/init`).

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    compile_messages();
    compile_init();
}

fn compile_messages() {
    const PROTO: &str = "proto/runc_options.proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let mut config = prost_build::Config::new();
    config.enable_type_names();
    if let Err(error) = config.compile_protos(&[PROTO], &["proto"]) {
        if error.kind() == std::io::ErrorKind::NotFound {
            panic!(
                "the protobuf compiler `protoc` was not found ({error}): run `apt-get install \
                 protobuf-compiler`, or set PROTOC to the program"
            );
        }
        panic!("{PROTO}: {error}");
    }
}

/// By the compiler itself, not as a target of the package: without libc and start files it needs no other
/// target than the agent's own, and flags that are meant for the agent (coverage, fuzzing) pass it by.
fn compile_init() {
    const SOURCE: &str = "src/init/main.rs";
    println!("cargo:rerun-if-changed=src/init");
    let variable = |name: &str| env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let program = PathBuf::from(variable("OUT_DIR")).join("ecsd-init");
    let mut compiler = Command::new(variable("RUSTC"));
    compiler.arg(SOURCE).arg("-o").arg(&program).arg("--target").arg(variable("TARGET"));
    compiler.args(["--edition", "2024", "--crate-name", "ecsd_init", "--crate-type", "bin"]);
    for option in ["panic=abort", "opt-level=s", "strip=symbols", "relocation-model=static"] {
        compiler.args(["-C", option]);
    }
    let of_linker = "-Wl,--build-id=none,-z,noseparate-code,--no-eh-frame-hdr,--gc-sections";
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", of_linker] {
        compiler.arg("-C").arg(format!("link-arg={argument}"));
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        compiler.arg("-C").arg(option);
    }
    match compiler.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{SOURCE}: the compiler: {status}"),
        Err(error) => panic!("{SOURCE}: the compiler: {error}"),
    }
}
