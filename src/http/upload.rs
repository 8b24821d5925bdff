//! tbd
use super::answer::{Answer, Call};
use super::problem::Problem;
pub async fn put(_: Call) -> Answer {
    Err(Problem::not_implemented("soon"))
}
pub async fn delete(_: &Call) -> Answer {
    Err(Problem::not_implemented("soon"))
}
pub async fn missing(_: &Call) -> Answer {
    Err(Problem::not_implemented("soon"))
}
