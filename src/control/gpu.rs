//! The GPUs of the instance, as ecs-init's probe wrote them down (spec/control-plane.md 2.2).

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GpuInfo {
    /// Version of the driver.
    #[serde(rename = "DriverVersion", default)]
    pub driver_version: String,
    /// UUIDs of the GPUs.
    #[serde(rename = "GPUIDs", default)]
    pub ids: Vec<String>,
}

/// The file is there and can't be used: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("{path} can't be used: mend or remove it, or unset ECS_ENABLE_GPU_SUPPORT")]
pub struct GpuError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl GpuInfo {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// [`GpuError`]
    pub fn read(path: &Path) -> Result<Option<Self>, GpuError> {
        let failed = |source| GpuError { path: path.to_owned(), source };
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_fine_and_invalid_is_not() {
        let path = std::env::temp_dir().join(format!("ecsd-gpu-{}.json", std::process::id()));
        assert_eq!(GpuInfo::read(&path).unwrap(), None);
        std::fs::write(&path, r#"{"DriverVersion":"535.1","GPUIDs":["GPU-a","GPU-b"]}"#).unwrap();
        assert_eq!(GpuInfo::read(&path).unwrap().unwrap().ids, ["GPU-a", "GPU-b"]);
        std::fs::write(&path, "{").unwrap();
        let error = GpuInfo::read(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains("ECS_ENABLE_GPU_SUPPORT"), "{error}");
    }
}
