//! `pipe serve`: a model behind an endpoint that speaks OpenAI's protocol.

use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::Args;
use owo_colors::OwoColorize;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tokio::sync::Notify;

use super::{
    CliError, Exit,
    answering::{ModelArguments, SamplingArguments, Started},
    count::{at_least_one, whole},
    said::say,
};
use crate::serve;

/// Arguments of `pipe serve`.
#[derive(Args)]
#[command(after_help = "\
It answers POST /v1/chat/completions, whole or as a stream, and GET /v1/models, one request at a time. What a request does
not say of sampling is what is said here, else what the model's generation_config.json says, else greedy. There is no key
to check: on loopback, which is where it listens by default, it is for programs of this machine.

  pipe serve adapter
  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none python -c 'import openai; print(openai.OpenAI().chat.completions.create(model=\"adapter\", messages=[{\"role\": \"user\", \"content\": \"Hi\"}]))'

Ctrl-C takes no more requests and ends when those that were taken are answered; a second one ends at once.")]
pub(super) struct Serve {
    #[command(flatten)]
    model: ModelArguments,
    /// The address or name to listen at
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port to listen at; 0 for any that is free
    #[arg(long, value_name = "N", default_value_t = 8000)]
    port: u16,
    /// The model's name for clients; without it that of the stage or folder
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// So many requests may wait while one is answered; more are told to come again
    #[arg(long, value_name = "N", default_value = "16", value_parser = whole)]
    queue: usize,
    /// The most tokens of an answer, also of one for which more are asked
    #[arg(long, value_name = "N", default_value = "2048", value_parser = at_least_one)]
    max_new_tokens: NonZeroUsize,
    #[command(flatten)]
    sampling: SamplingArguments,
}

impl Serve {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        // Before the model is loaded, which takes longer.
        let (listener, address) = self.listen()?;
        let Started { worker, model, _gpu, .. } = self.model.start(false)?;
        let options = serve::Options {
            model: self.name.unwrap_or(model.name),
            sampling: self.sampling.sampling(),
            max_new_tokens: self.max_new_tokens.get(),
            queue: self.queue,
            host: self.host,
        };
        if !serve::is_local(&address) {
            say!(
                "{} {address} can be reached from other machines, and whoever reaches it is answered: there is no key",
                "warning:".yellow()
            );
        }
        say!("`{}` answers at http://{address}/v1 (Ctrl-C to end)", options.model);
        let stop = stop_at_signals()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(lacks)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(lacks)?;
            let stopped = async move {
                stop.notified().await;
                say!("taking no more requests; once more to end at once");
            };
            serve::serve(listener, worker, options, stopped).await.map_err(lacks)
        })?;
        Ok(Exit::Done)
    }

    fn listen(&self) -> Result<(TcpListener, SocketAddr), CliError> {
        let place = format!("{}:{}", self.host, self.port);
        let refused = |error: std::io::Error| {
            let help = "name another address with --host, or another port with --port (0 for any)".to_owned();
            CliError::usage(format!("cannot listen at {place}: {error}"), help)
        };
        let addresses: Vec<SocketAddr> = (self.host.as_str(), self.port).to_socket_addrs().map_err(refused)?.collect();
        let listener = TcpListener::bind(&addresses[..]).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok((listener, address))
    }
}

/// The first signal asks to stop, the second ends the program.
fn stop_at_signals() -> Result<Arc<Notify>, CliError> {
    let stop = Arc::new(Notify::new());
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(lacks)?;
    let count = AtomicUsize::new(0);
    let notify = Arc::clone(&stop);
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _signal in signals.forever() {
            if count.fetch_add(1, Ordering::SeqCst) > 0 {
                // The model's process is ended by the kernel as its parent ends.
                std::process::exit(1);
            }
            notify.notify_one();
        }
    });
    thread.map(|_| stop).map_err(lacks)
}

fn lacks(error: std::io::Error) -> CliError {
    CliError::Lacks {
        message: format!("cannot serve: {error}"),
        help: "see what `pipe doctor` says of this machine".to_owned(),
    }
}
