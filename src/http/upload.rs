//! tbd
use super::problem::Problem;
use super::state::Answer;
pub async fn put() -> Answer {
    Err(Problem::not_implemented("soon"))
}
pub async fn delete() -> Answer {
    Err(Problem::not_implemented("soon"))
}
pub async fn missing() -> Answer {
    Err(Problem::not_implemented("soon"))
}
