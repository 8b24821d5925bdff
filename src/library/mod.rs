//! temporary
use crate::media::index::{Index, Summary};
use crate::store::MappedFile;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
pub struct LibraryConfig {
    pub library: PathBuf,
    pub state_dir: Option<PathBuf>,
    pub poll: Option<Duration>,
    pub upload_bytes_max: u64,
    pub space_reserve: u64,
    pub upload_expiry: Duration,
    pub index_bytes_max: u64,
}
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
#[derive(Clone)]
pub struct Library {
    cat: Arc<Catalogue>,
}
#[derive(Default)]
pub struct Catalogue {
    by: HashMap<String, Arc<Video>>,
    order: Vec<Arc<Video>>,
}
impl Catalogue {
    pub fn len(&self) -> usize {
        self.order.len()
    }
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
    pub fn videos(&self) -> &[Arc<Video>] {
        &self.order
    }
    pub fn get(&self, id: &str) -> Option<&Arc<Video>> {
        self.by.get(id)
    }
}
pub struct Video {
    id: String,
    path: PathBuf,
    size: u64,
    modified: SystemTime,
    etag: String,
    file: OnceLock<Arc<MappedFile>>,
}
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("changed")]
    Changed { id: String },
    #[error("{source}")]
    Io { id: String, source: std::io::Error },
}
#[derive(Clone, Debug)]
pub enum IndexState {
    Pending,
    Ready(Arc<Summary>),
    None(NoIndex),
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoIndex {
    Unsupported(String),
    Malformed(String),
}
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    Io(String),
}
impl Video {
    pub fn id(&self) -> &str {
        &self.id
    }
    pub fn size_bytes(&self) -> u64 {
        self.size
    }
    pub fn modified(&self) -> SystemTime {
        self.modified
    }
    pub fn etag(&self) -> &str {
        &self.etag
    }
    pub fn index_state(&self) -> IndexState {
        IndexState::Pending
    }
    pub async fn file(self: &Arc<Self>) -> Result<Arc<MappedFile>, FileError> {
        Ok(Arc::clone(self.file.get_or_init(|| Arc::new(MappedFile::open(&self.path).expect("x")))))
    }
}
pub struct Progress {
    pub done: usize,
    pub total: usize,
}
impl Library {
    pub fn open(c: LibraryConfig) -> Result<Self, OpenError> {
        let mut cat = Catalogue::default();
        for e in std::fs::read_dir(&c.library)? {
            let e = e?;
            let m = std::fs::metadata(e.path())?;
            if !m.is_file() {
                continue;
            }
            let v = Arc::new(Video {
                id: e.file_name().to_string_lossy().into_owned(),
                path: e.path(),
                size: m.len(),
                modified: m.modified()?,
                etag: format!("\"{:x}\"", m.len()),
                file: OnceLock::new(),
            });
            cat.by.insert(v.id.clone(), v.clone());
            cat.order.push(v);
        }
        Ok(Self { cat: Arc::new(cat) })
    }
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.cat.clone()
    }
    pub fn get(&self, id: &str) -> Option<Arc<Video>> {
        self.cat.get(id).cloned()
    }
    pub async fn index(&self, _: &Arc<Video>) -> Result<Arc<Index>, IndexError> {
        Err(IndexError::Unsupported("x".into()))
    }
    pub fn write_key(&self, k: Option<&str>) -> Result<String, std::io::Error> {
        Ok(k.unwrap_or("key").into())
    }
    pub fn generated_key(&self) -> Option<&str> {
        None
    }
    pub fn progress(&self) -> Progress {
        Progress { done: 0, total: 0 }
    }
    pub fn start_background(&self) {}
}
