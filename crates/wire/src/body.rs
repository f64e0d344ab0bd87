//! Bodies of answers, no larger than anybody needs: a device that is broken or taken over may send for ever.

use reqwest::Response;
use thiserror::Error;

/// Why there is no body.
#[derive(Debug, Error)]
pub enum BodyError {
    /// It ended early, or too late.
    #[error(transparent)]
    Failed(#[from] reqwest::Error),
    /// It is larger than it may be.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// The whole body, of at most so many bytes; no more than that is kept of a larger one.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        let answer = |length| Response::from(http::Response::new(vec![b'x'; length]));
        for length in [0, 7, 8] {
            let body = read(answer(length), 8).await.expect("it fits");
            assert_eq!(body.len(), length);
        }
        let error = read(answer(9), 8).await.expect_err("one byte more");
        assert_eq!(error.to_string(), "the answer is larger than 8 bytes");
    }
}
