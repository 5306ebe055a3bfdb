//! Compiles the protobuf messages that the `containerd-client` crate lacks (see `proto/`).

fn main() {
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
