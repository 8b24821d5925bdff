//! `POST /adjust` and `POST /enhance`: an image in, the same image edited out. As a multipart form whose file is
//! `the_file`, or as a plain body with query parameters.

use super::answer::{Answer, Call};
use super::form::{Form, FormError, boundary};
use super::frame::{adjust, format, problem, response};
use super::problem::Problem;
use super::query::Query;
use crate::frame::encode::Format;
use crate::frame::still::{Edit, encode};
use crate::frame::{Parts, upload};
use crate::lazy::{Component, Components};
use crate::profile::{SpanExt, Stage, site};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body as _;
use std::sync::Arc;

/// The part of a form that is the image.
const FILE: &str = "the_file";

/// The handlers, each a component with what it works with.
pub struct Editors {
    adjust: Component<Editor>,
    enhance: Component<Editor>,
}

/// A handler: which parameters it has, and what they ask for.
pub struct Editor {
    names: &'static [&'static str],
    edit: fn(&Query<'_>) -> Result<Edit, Problem>,
}

impl Editors {
    pub fn add(components: &Components, frames: &Arc<Parts>) -> Self {
        let parts = Arc::clone(frames);
        let adjust = components.add("adjust", move |init| {
            init.need(&parts.stills)?;
            let edit = |query: &Query<'_>| Ok(Edit { adjust: Some(adjust(query)?.unwrap_or_default()), enhance: None });
            Ok(Editor { names: &["brightness", "contrast", "format", "quality"], edit })
        });
        let parts = Arc::clone(frames);
        let enhance = components.add("enhance", move |init| {
            init.need(&parts.stills)?;
            init.need(&parts.enhancer)?;
            let edit = |query: &Query<'_>| {
                let amount = query.decimal_in("amount", 0.0..=1.0)?.unwrap_or(1.0);
                Ok(Edit { adjust: None, enhance: Some(amount as f32) })
            };
            Ok(Editor { names: &["amount", "format", "quality"], edit })
        });
        Self { adjust, enhance }
    }
}

/// `POST /adjust`
pub async fn adjusted(call: Call) -> Answer {
    let editor = call.edge.editors.adjust.get(|| call.asked()).await?;
    edited(call, &editor).await
}

/// `POST /enhance`
pub async fn enhanced(call: Call) -> Answer {
    let editor = call.edge.editors.enhance.get(|| call.asked()).await?;
    edited(call, &editor).await
}

/// Reads the image and its parameters, and answers with what they make of it.
async fn edited(mut call: Call, editor: &Editor) -> Answer {
    let query = call.uri.query().map(str::to_owned);
    let query = Query::parse(query.as_deref())?;
    if call.headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::unsupported_media_type("send the image as it is, without Content-Encoding"));
    }
    let content_type = call.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let boundary = boundary(content_type)?;
    if boundary.is_none() {
        // A wrong parameter is told before the body is sent.
        (editor.edit)(&query)?;
        format(&query, Format::Png)?;
    } else if editor.names.iter().any(|name| query.get(name).is_some()) {
        let names = editor.names.join(", ");
        return Err(Problem::bad_request(format!("give {names} as fields of the form or in the query, not in both")));
    }
    let body = receive(&mut call).await?;
    let (image, edit, format) = match &boundary {
        None => parts(editor, body.clone(), &query)?,
        Some(boundary) => {
            let form = Form::parse(&body, boundary)?;
            parts(editor, body.slice(form.file(FILE)?), &form.fields(FILE)?)?
        }
    };
    let stills = call.edge.frames.stills.get(|| call.asked()).await?;
    let job = call.edge.frames.job(call.asked());
    let made = stills.run(move || {
        let mut image = upload::read(&image, &job.limits)?;
        edit.apply(&mut image, &job)?;
        encode(&image, format, &job)
    });
    let timed = call.timing.stage(Stage::Render);
    let bytes = made.span(site!(Stage::Render.name())).await.map_err(|error| problem(&error))?;
    drop(timed);
    let mut response = response(bytes, format.content_type(), &call.method);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What is asked for: the image is given back in its own format unless another one is named.
fn parts(editor: &Editor, image: Bytes, parameters: &Query<'_>) -> Result<(Bytes, Edit, Format), Problem> {
    let edit = (editor.edit)(parameters)?;
    let own = upload::format(&image).map_err(|error| problem(&Arc::new(error)))?;
    let format = format(parameters, own)?;
    Ok((image, edit, format))
}

/// The whole body, which may have so many bytes.
async fn receive(call: &mut Call) -> Result<Bytes, Problem> {
    let limit = call.edge.config.image_bytes_max.0;
    let too_large = || Problem::content_too_large(format!("an image may have {limit} bytes"), limit);
    if call.body.size_hint().lower() > limit {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(bytes) = call.next_bytes().await? {
        if (body.len() + bytes.len()) as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body.into())
}

impl From<FormError> for Problem {
    fn from(error: FormError) -> Self {
        match error {
            FormError::Field(error) => error.into(),
            error => Self::bad_request(error.to_string()),
        }
    }
}
