//! The command line.

mod certificate;
pub(crate) mod numbers;
mod vrrp;

use std::{
    io::{self, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use amphora_model::{ListenerId, LoadBalancerId, MemberId, PoolId};
use clap::{
    ArgGroup, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};
use clap_complete::Shell;
use uuid::Uuid;

use self::numbers::{seconds, whole};
use crate::{
    certs,
    client::{Client, Endpoint, TlsOptions},
    cmd::{self, member::Named},
    demo,
    error::{Error, Result},
    serve,
    style::{Colour, Style},
};

/// Drives the amphorae of a load balancer through their native API, and shows what they do.
#[derive(Debug, Parser)]
#[command(name = "amphora-controller", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: Target,
}

const EXAMPLES: &str = "\
Examples:
  See all of it at work on this host, then leave nothing behind:
    amphora-controller demo --once
  Certificates for one amphora at 192.0.2.5:
    amphora-controller certs init ./certs --host 192.0.2.5
  Bring a load balancer to it, look at it, take a member out softly:
    export AMPHORA_CERTS=./certs AMPHORA_ENDPOINTS=https://192.0.2.5:9443
    amphora-controller apply lb.yaml
    amphora-controller status
    amphora-controller member POOL MEMBER --weight 0
  Let the other amphora of a pair take the address over:
    amphora-controller vrrp failover --amphora https://192.0.2.5 --amphora https://192.0.2.6

Exit codes:
  0      done
  1      the amphora refused, or what it was asked for did not come about
  2      the arguments, or a file that they name, cannot be used
  3      the amphora cannot be reached
  4      the demo showed something that was not true
  5      this host did not allow it
  128+N  signal N ended it; 141 also when standard output was closed early";

const APPLY: &str = "\
Applying the same document again changes nothing. A refused document changes \
nothing either: each fault is told with its place, and the exit code is 1.

--dry-run judges the document here, then, where --amphora is given, compares it \
with what is there. \
Regular expressions and what else L7 policies compare is judged by amphora-proxy, \
which need not run; where it is not there, a warning says so. \
What only the amphora can find out it does not tell: ports in use, monitors \
that its host does not permit, another load balancer that is there already.

The document is Octavia's fully populated load-balancer create document, with ids. In YAML:

  loadbalancer:
    id: 0b0e0c3a-4f43-4f0c-9b53-3d7a5f4f7c11
    vip_address: 192.0.2.10
    listeners:
    - id: 3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22
      protocol: HTTP
      protocol_port: 80
      default_pool:
        id: 9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33
        protocol: HTTP
        lb_algorithm: ROUND_ROBIN
        members:
        - id: 5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44
          address: 198.51.100.11
          protocol_port: 8080";

/// How long `heartbeats` waits for an amphora that it asks for its role.
const ROLE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a load balancer be what a document says, on one amphora or a pair
    #[command(after_help = APPLY)]
    Apply {
        /// JSON or YAML; `-` is standard input
        file: PathBuf,
        /// Judge the document and say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// The amphora-proxy that judges for --dry-run [default: beside this program]
        #[arg(long, value_name = "FILE", requires = "dry_run")]
        proxy: Option<PathBuf>,
        #[command(flatten)]
        target: Target,
    },
    /// Remove a load balancer: its listeners close, its sessions drain
    Delete {
        /// The load balancer's UUID; by default the one that the amphora carries
        id: Option<LoadBalancerId>,
        #[command(flatten)]
        target: Target,
    },
    /// Show the operating status of everything: a tree on a terminal, JSON otherwise
    Status {
        /// The load balancer's UUID; by default the one that the amphora carries
        id: Option<LoadBalancerId>,
        /// JSON also on a terminal
        #[arg(long)]
        json: bool,
        /// The tree also when standard output is no terminal
        #[arg(long, conflicts_with = "json")]
        tree: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Say what a request would meet: which policy, which pool, which member, and why not others
    #[command(after_help = "\
The amphora's own program decides, by what it runs at this moment; nothing is sent to a member, and nothing is counted. \
A key in the file of --certificate stays here.

  amphora-controller explain web --request 'GET /api/v1' --host www.example.org --cookie SRV=...")]
    Explain {
        /// The listener's UUID or name
        listener: Named<ListenerId>,
        /// Method and target [default: GET /]
        #[arg(long, value_name = "METHOD TARGET")]
        request: Option<String>,
        /// `Host` [default: the listener's address]
        #[arg(long)]
        host: Option<String>,
        /// A header field, "Name: value"; repeatable
        #[arg(long = "header", value_name = "FIELD")]
        headers: Vec<String>,
        /// A cookie, name=value; repeatable
        #[arg(long = "cookie", value_name = "COOKIE")]
        cookies: Vec<String>,
        /// The client's address [default: 192.0.2.1]
        #[arg(long, value_name = "ADDRESS")]
        client: Option<IpAddr>,
        /// The client's certificate in PEM, and behind it those of authorities between [default: it has none]
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// The load balancer's UUID; by default the one that the amphora carries
        #[arg(long)]
        id: Option<LoadBalancerId>,
        /// JSON, one document per amphora
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Show counters
    Stats {
        /// The load balancer's UUID; by default the one that the amphora carries
        id: Option<LoadBalancerId>,
        /// Again every --interval, with rates, until interrupted
        #[arg(long, short)]
        watch: bool,
        /// Seconds between looks
        #[arg(long, default_value = "1", value_parser = seconds, requires = "watch")]
        interval: Duration,
        /// JSON, one document per amphora and look
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Set a member's weight or administrative state, and nothing else
    #[command(
        after_help = "\
Weight 0 drains: only clients with a persistent session still reach the member. --admin-state down takes it out at \
once. Both are a patch: the next `apply` puts back what its document says.

A name must be the only one of its kind. What is a UUID is taken for an id.",
        group = ArgGroup::new("patch").args(["weight", "admin_state"]).required(true).multiple(true)
    )]
    Member {
        /// The pool's UUID or name
        pool: Named<PoolId>,
        /// The member's UUID or name
        member: Named<MemberId>,
        /// The load balancer's UUID; by default the one that the amphora carries
        #[arg(long)]
        id: Option<LoadBalancerId>,
        /// 0 to 256; 0 drains
        #[arg(long, value_parser = whole(0_u16, 256))]
        weight: Option<u16>,
        /// Whether the member takes part
        #[arg(long)]
        admin_state: Option<AdminState>,
        #[command(flatten)]
        target: Target,
    },
    /// Keys, certificates and revocation lists that documents name
    #[command(subcommand)]
    Certificate(certificate::CertificateCommand),
    /// Set up VRRP of an amphora or a pair, and hand the address over
    #[command(subcommand)]
    Vrrp(vrrp::VrrpCommand),
    /// Listen for heartbeats, verify and show them
    #[command(after_help = "\
The key is `heartbeat_key` in the agent's [health_manager] section; the amphora sends to each address in its \
`controller_ip_port_list`. What does not verify is counted and told on standard error, never shown as true.

With --amphora and --certs, each heartbeat is shown with the role that its sender has in VRRP; it is asked every second.")]
    Heartbeats {
        /// UDP address to listen on
        #[arg(long, value_name = "ADDR:PORT", default_value = "[::]:5555")]
        bind: SocketAddr,
        /// The HMAC key
        #[arg(long, value_name = "KEY", env = "AMPHORA_HEARTBEAT_KEY", hide_env_values = true)]
        key: String,
        /// One JSON document per line
        #[arg(long)]
        json: bool,
        /// End after this many that verified
        #[arg(long, value_name = "N", value_parser = whole(0, u64::MAX))]
        count: Option<u64>,
        /// An amphora to ask for its role: https://[UUID@]host[:port]; repeat it for a pair
        #[arg(long = "amphora", value_name = "URL", value_delimiter = ',', requires = "certs")]
        amphorae: Vec<Endpoint>,
        /// Directory that `certs init` made, to reach --amphora
        #[arg(long, value_name = "DIR", env = "AMPHORA_CERTS")]
        certs: Option<PathBuf>,
    },
    /// Certificates for mutual TLS
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Run an amphora, then a pair, with members and clients on this host, and show that what is promised is true
    Demo(demo::Options),
    /// Serve Octavia's API, and make what it is told become so on this host
    #[command(after_help = SERVE)]
    Serve(serve::run::Options),
    /// Write load balancers of `serve` as bodies of Octavia's fully populated create
    Export(cmd::export::Options),
    /// Print a completion script
    #[command(
        after_help = "Example: amphora-controller completions bash > /etc/bash_completion.d/amphora-controller"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The program of the demo's members
    #[command(hide = true)]
    DemoMember(demo::MemberOptions),
    /// Starts the demo's programs
    #[command(hide = true)]
    DemoLeash(demo::LeashOptions),
    /// Runs a program of the demo's with process ids of its own
    #[command(hide = true)]
    DemoRoom(demo::RoomOptions),
}

const SERVE: &str = "\
Needs root: amphorae are network namespaces of this host. Everything has a default; without --config-file none is read. \
What it has made goes on when it ends, and is found again at the next start with the same --data-dir.";

const CERTS: &str = "\
Examples:
  One amphora, which is asked for by its UUID wherever it is:
    amphora-controller certs init ./certs --amphora-id 6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11
  One that is asked for by its address:
    amphora-controller certs init ./certs --host 192.0.2.5";

#[derive(Debug, Subcommand)]
enum CertsCommand {
    /// Make a CA, a server certificate per amphora, and a client certificate
    #[command(after_help = CERTS)]
    Init {
        /// Where to; created when missing
        dir: PathBuf,
        /// The amphora's UUID, which names its certificate; repeat it for a pair [default: one that is made up]
        #[arg(long = "amphora-id", value_name = "UUID")]
        amphorae: Vec<Uuid>,
        /// Further name or address of the amphora in its certificate; repeatable
        #[arg(long = "host", value_name = "NAME|IP")]
        hosts: Vec<String>,
        /// Days of validity
        #[arg(long, default_value_t = 365, value_parser = whole(1, certs::MAX_DAYS))]
        days: u16,
        /// Replace what is there
        #[arg(long)]
        force: bool,
    },
}

/// Which amphorae, and how to reach them: before the command or after it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Amphorae")]
struct Target {
    /// An amphora: https://[UUID@]host[:port]; repeat it for a pair
    #[arg(long = "amphora", value_name = "URL", env = "AMPHORA_ENDPOINTS", value_delimiter = ',')]
    amphorae: Vec<Endpoint>,
    /// Seconds that an amphora has for one answer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    tls: TlsOptions,
}

/// `--admin-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AdminState {
    Up,
    Down,
}

impl Command {
    /// Of a command that speaks to amphorae.
    fn target(&mut self) -> Option<&mut Target> {
        match self {
            Self::Apply { target, .. }
            | Self::Delete { target, .. }
            | Self::Status { target, .. }
            | Self::Explain { target, .. }
            | Self::Stats { target, .. }
            | Self::Member { target, .. } => Some(target),
            Self::Certificate(command) => Some(command.target()),
            Self::Vrrp(command) => Some(command.target()),
            Self::Heartbeats { .. }
            | Self::Certs(_)
            | Self::Demo(_)
            | Self::Serve(_)
            | Self::Export(_)
            | Self::Completions { .. }
            | Self::DemoMember(_)
            | Self::DemoLeash(_)
            | Self::DemoRoom(_) => None,
        }
    }
}

impl Target {
    /// Takes over those options of another that `wins` says of.
    fn take_over(&mut self, other: Self, wins: &dyn Fn(&str) -> bool) {
        if wins("amphorae") {
            self.amphorae = other.amphorae;
        }
        if wins("timeout") {
            self.timeout = other.timeout;
        }
        self.tls.take_over(other.tls, wins);
    }

    fn clients(&self) -> Result<Vec<Client>> {
        // They may stand before the command, which clap cannot know when it judges what stands behind.
        if self.amphorae.is_empty() {
            return Err(Error::Usage(
                "which amphora? give --amphora https://UUID@host, or set AMPHORA_ENDPOINTS".to_owned(),
            ));
        }
        clients(&self.amphorae, &self.tls, self.timeout)
    }
}

fn clients(amphorae: &[Endpoint], tls: &TlsOptions, timeout: Duration) -> Result<Vec<Client>> {
    let config = tls.client_config()?;
    let client =
        |endpoint: &Endpoint| Client::new(endpoint.clone(), config.clone(), tls.server_name.clone(), timeout);
    Ok(amphorae.iter().map(client).collect())
}

/// The command line, for whoever describes it: manual pages, completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the command line, does what it says, and tells errors on standard error.
pub fn main() -> ExitCode {
    // clap prints help (0) and usage errors (2) and exits by itself.
    let command = parse(&Cli::command().get_matches()).unwrap_or_else(|error| error.exit());
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ Error::OutputClosed) => error.exit_code(),
        Err(error) => {
            let style = Style::of(&io::stderr());
            let _ = writeln!(io::stderr(), "{} {error}", style.paint(Colour::Red, "error:"));
            error.exit_code()
        }
    }
}

/// Reads the command line. What says how to reach an amphora may stand before the command or, where both are there with
/// more right, after it. clap's own global options will not do: a command may have others of the same name.
fn parse(matches: &ArgMatches) -> Result<Command, clap::Error> {
    let Cli { mut command, target } = Cli::from_arg_matches(matches)?;
    if let (Command::Serve(options), Some((_, own))) = (&mut command, matches.subcommand()) {
        options.put_in_order(own);
    }
    if let (Some(own), Some((_, mut after))) = (command.target(), matches.subcommand()) {
        // `vrrp` and `certificate` have commands of their own, which have the options.
        while let Some((_, deeper)) = after.subcommand() {
            after = deeper;
        }
        own.take_over(target, &|id| {
            let said = |matches: &ArgMatches| matches.value_source(id) == Some(ValueSource::CommandLine);
            said(matches) && !said(after)
        });
    }
    Ok(command)
}

fn run(command: Command) -> Result<()> {
    let out = &mut io::stdout().lock();
    let style = Style::of(&io::stdout());
    let terminal = io::stdout().is_terminal();
    match command {
        Command::Apply { file, dry_run, proxy, target } => {
            let document = crate::document::Document::read(&file)?;
            // A document can be judged before there is an amphora.
            let alone = dry_run && target.amphorae.is_empty();
            let clients = if alone { Vec::new() } else { target.clients()? };
            let dry_run = dry_run.then_some(cmd::lb::DryRun { proxy });
            block_on(cmd::lb::apply(out, style, &clients, &document, dry_run))
        }
        Command::Delete { id, target } => block_on(cmd::lb::delete(out, &target.clients()?, id)),
        Command::Status { id, json, tree, target } => {
            let json = json || (!terminal && !tree);
            block_on(cmd::lb::status(out, style, &target.clients()?, id, json))
        }
        Command::Explain {
            listener,
            request,
            host,
            headers,
            cookies,
            client,
            certificate,
            id,
            json,
            target,
        } => {
            let certificate = certificate.as_deref().map(cmd::explain::certificates).transpose()?;
            let asked =
                cmd::explain::Asked { listener, request, host, headers, cookies, client, certificate };
            block_on(cmd::explain::explain(out, style, &target.clients()?, id, &asked, json))
        }
        Command::Stats { id, watch, interval, json, target } => {
            let watch = watch.then_some(interval);
            block_on(cmd::stats::stats(out, &target.clients()?, id, watch, json, terminal))
        }
        Command::Member { pool, member, id, weight, admin_state, target } => {
            let up = admin_state.map(|s| s == AdminState::Up);
            block_on(cmd::member::member(out, &target.clients()?, id, (&pool, &member), weight, up))
        }
        Command::Certificate(command) => certificate::run(out, command),
        Command::Vrrp(command) => vrrp::run(out, command),
        Command::Heartbeats { bind, key, json, count, amphorae, certs } => {
            let tls = TlsOptions { certs, ..TlsOptions::default() };
            let clients =
                if amphorae.is_empty() { Vec::new() } else { clients(&amphorae, &tls, ROLE_TIMEOUT)? };
            block_on(cmd::heartbeats::listen(out, style, bind, &key, json, count, clients))
        }
        Command::Certs(CertsCommand::Init { dir, mut amphorae, hosts, days, force }) => {
            if amphorae.is_empty() {
                amphorae.push(Uuid::new_v4());
            }
            let written =
                certs::init(&dir, &certs::Request { amphorae: amphorae.clone(), hosts, days, force })?;
            for path in written {
                writeln!(out, "{}", path.display())?;
            }
            let id = amphorae[0];
            writeln!(
                out,
                "\nOn the amphora, [amphora_agent]: agent_server_ca = ca.pem, agent_server_cert = server-{id}.pem"
            )?;
            writeln!(out, "Here: --certs {} --amphora https://{id}@ADDRESS", dir.display())?;
            Ok(())
        }
        Command::Demo(options) => demo::run(&options),
        Command::Serve(options) => serve::run::run(&options),
        Command::Export(options) => Ok(out.write_all(cmd::export::run(&options)?.as_bytes())?),
        Command::DemoMember(options) => demo::run_member(&options),
        Command::DemoLeash(options) => demo::run_leashed(&options),
        Command::DemoRoom(options) => demo::run_room(&options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "amphora-controller", &mut script);
            Ok(out.write_all(&script)?)
        }
    }
}

/// Runs a command on a current-thread runtime.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    crate::runtime::runtime()?.block_on(command)
}

#[cfg(test)]
mod tests;
