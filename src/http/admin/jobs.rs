//! Work that takes seconds and blocks: each has a thread of its own, and there are only so many at once. The admin
//! listener answers meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use tokio::sync::oneshot;

/// Jobs at once.
const JOBS_MAX: usize = 16;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Why a job did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error("{JOBS_MAX} profiles are being taken; try again when they are done")]
    TooMany,
    #[error("the profile could not be taken; see the log")]
    Died,
}

/// Whether anybody still waits for a job's result.
pub(super) struct Wanted<T>(oneshot::Sender<T>);

impl<T> Wanted<T> {
    pub(super) fn is_given_up(&self) -> bool {
        self.0.is_closed()
    }
}

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Relaxed);
    }
}

/// Runs `job` on a thread of its own.
pub(super) async fn run<T: Send + 'static>(job: impl FnOnce(&Wanted<T>) -> T + Send + 'static) -> Result<T, JobError> {
    let running = RUNNING.fetch_add(1, Relaxed);
    let counted = Counted;
    if running >= JOBS_MAX {
        return Err(JobError::TooMany);
    }
    let (done, result) = oneshot::channel();
    let work = move || {
        let _counted = counted;
        let wanted = Wanted(done);
        let outcome = job(&wanted);
        let _ = wanted.0.send(outcome);
    };
    thread::Builder::new().name("weir-profile".to_owned()).spawn(work).map_err(|_| JobError::TooMany)?;
    result.await.map_err(|_| JobError::Died)
}
