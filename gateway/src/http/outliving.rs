//! What goes on when its client leaves. Most clients stay, so no task is made until one goes: a task of its own wakes
//! another thread and hands its end back, for every call.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};

/// What a panic leaves.
type Panic = Box<dyn Any + Send>;

/// A future that goes on in a task of its own when it is dropped before its end. A panic is an error, as a task's is.
pub(super) struct Outliving<T: Send + 'static>(Option<BoxFuture<'static, Result<T, Panic>>>);

impl<T: Send + 'static> Outliving<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(AssertUnwindSafe(future).catch_unwind())))
    }
}

impl<T: Send + 'static> Future for Outliving<T> {
    type Output = Result<T, Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let ended = future.as_mut().poll(context);
        if ended.is_ready() {
            self.0 = None;
        }
        ended
    }
}

impl<T: Send + 'static> Drop for Outliving<T> {
    fn drop(&mut self) {
        // A process that stops has no runtime any more.
        if let (Some(future), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_ends_where_it_is_awaited() {
        let (end, ends) = oneshot::channel::<u8>();
        let mut waiting = Box::pin(Outliving::new(async { ends.await.unwrap() }));
        assert!(poll!(&mut waiting).is_pending());
        end.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), 7);
        let panics = Outliving::new(async { assert_eq!(1, 2, "a panic") });
        panics.await.expect_err("it says so");
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_awaits_it_any_more() {
        let (end, ends) = oneshot::channel::<u8>();
        let (tell, told) = oneshot::channel();
        let mut waiting = Box::pin(Outliving::new(async { tell.send(ends.await.unwrap()).unwrap() }));
        assert!(poll!(&mut waiting).is_pending());
        drop(waiting);
        end.send(7).unwrap();
        assert_eq!(told.await.unwrap(), 7);
    }
}
