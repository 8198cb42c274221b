// Package config is the one table of settings: each field's tags give its
// name, environment variable, default, kind and meaning; the type Secret marks
// what must not be shown. Flags win over the environment, the environment
// over defaults. Every secret can also be read from a file named by the
// variable with _FILE at its end (DATABASE_URL_FILE), as container platforms
// hand secrets out.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Storage says where everything is kept. Server and command line share it.
type Storage struct {
	Data        string `name:"data" env:"NEUROSCREEN_DATA" default:"${data}" type:"path" help:"Folder for scans, files, secrets and the private database cluster."`
	DatabaseURL Secret `name:"database-url" env:"DATABASE_URL" help:"Postgres to use, as postgres://user:password@host/name. Without it: a private cluster in the data folder."`
	Secret      Secret `name:"secret" env:"NEUROSCREEN_SECRET" help:"64 hex digits that pseudonyms and the identifiers' encryption hang on. Without it: made once and kept in the data folder, file secret. Keep a copy."`
	Site        string `name:"site" env:"NEUROSCREEN_SITE" default:"default" help:"Name of the site that the first start makes."`
}

// UploadDir holds uploads that come in pieces, until they are whole.
func (s Storage) UploadDir() string { return filepath.Join(s.Data, "uploads") }

// SecretFile is where the secret is kept when none is given.
func (s Storage) SecretFile() string { return filepath.Join(s.Data, "secret") }

// AdminKeyFile is where the first admin key is kept.
func (s Storage) AdminKeyFile() string { return filepath.Join(s.Data, "admin.key") }

// BlobDir holds scans and derived files.
func (s Storage) BlobDir() string { return filepath.Join(s.Data, "blobs") }

// Server is everything that the service can be told.
type Server struct {
	Storage

	Role            string         `name:"role" env:"NEUROSCREEN_ROLE" enum:"api,worker,both" default:"both" help:"api answers requests, worker analyses scans, both does both."`
	Listen          string         `name:"listen" env:"NEUROSCREEN_LISTEN" default:"127.0.0.1:8080" help:"Address to listen on. Beyond this machine, use TLS here or a proxy with TLS in front."`
	TLSCert         string         `name:"tls-cert" env:"NEUROSCREEN_TLS_CERT" type:"path" help:"Certificate chain (PEM)."`
	TLSKey          string         `name:"tls-key" env:"NEUROSCREEN_TLS_KEY" type:"path" help:"Its private key (PEM)."`
	MaxUpload       Bytes          `name:"max-upload" env:"NEUROSCREEN_MAX_UPLOAD" default:"1GiB" help:"Largest scan that is accepted, as received."`
	MaxImage        Bytes          `name:"max-image" env:"NEUROSCREEN_MAX_IMAGE" default:"4GiB" help:"Largest scan that is accepted, after decompression."`
	MaxUploads      int            `name:"max-uploads" env:"NEUROSCREEN_MAX_UPLOADS" default:"64" help:"Uploads that are read at the same time, each with some 3 MB of memory; more are answered 429."`
	BodyIdle        time.Duration  `name:"body-idle" env:"NEUROSCREEN_BODY_IDLE" default:"30s" help:"An upload that brings no bytes for so long is given up."`
	Workers         int            `name:"workers" env:"NEUROSCREEN_WORKERS" default:"1" help:"Scans that this process analyses at once. One uses all cores."`
	Memory          Bytes          `name:"memory" env:"NEUROSCREEN_MEMORY" default:"0" help:"Memory that this process may take, such as 2GiB: scans wait until there is room for their analysis, and one that never fits is refused. 0: three quarters of the machine's or container's."`
	Lease           time.Duration  `name:"lease" env:"NEUROSCREEN_LEASE" default:"30s" help:"A scan whose worker was killed is taken up by another after this time and up to 10 s more."`
	SessionIdle     time.Duration  `name:"session-idle" env:"NEUROSCREEN_SESSION_IDLE" default:"30m" help:"A browser is signed out after so long without use."`
	PublicURL       string         `name:"public-url" env:"NEUROSCREEN_PUBLIC_URL" help:"Address that browsers know the service by, as https://host. Needed for an identity provider."`
	OIDCIssuer      string         `name:"oidc-issuer" env:"NEUROSCREEN_OIDC_ISSUER" help:"Identity provider (OpenID Connect) that clinicians sign in at, and whose tokens are taken like keys. Without it: with keys only."`
	OIDCClient      string         `name:"oidc-client" env:"NEUROSCREEN_OIDC_CLIENT" help:"This service's client id there; its redirect address is PUBLIC-URL/session/provider/callback."`
	OIDCSecret      Secret         `name:"oidc-secret" env:"NEUROSCREEN_OIDC_SECRET" help:"The client's secret; none for a public client."`
	OIDCAudiences   []string       `name:"oidc-audience" env:"NEUROSCREEN_OIDC_AUDIENCE" help:"Audiences that the provider's tokens may be made for when a call is sent with one, besides the client id."`
	OIDCRoleClaim   string         `name:"oidc-role-claim" env:"NEUROSCREEN_OIDC_ROLE_CLAIM" default:"roles" help:"Claim of the token with a person's roles: uploader, clinician, researcher or admin, alone or behind neuroscreen-."`
	StopAfter       time.Duration  `name:"stop-after" env:"NEUROSCREEN_STOP_AFTER" default:"20s" help:"Time for requests and analyses under way when the service stops; an analysis cut short is done again."`
	KeepDays        int            `name:"keep-scan-days" env:"NEUROSCREEN_KEEP_SCAN_DAYS" default:"0" help:"Days after its end for which a scan's own bytes are kept; results, label maps and reports stay. 0 keeps them."`
	WebhookNetworks []netip.Prefix `name:"webhook-networks" env:"NEUROSCREEN_WEBHOOK_NETWORKS" help:"Private networks that webhooks may lead to, also without TLS, as 10.1.0.0/16,192.168.7.0/24. Without it: public addresses over https."`
	LogFormat       string         `name:"log-format" env:"NEUROSCREEN_LOG_FORMAT" enum:"text,json" default:"text" help:"Log lines as text or JSON."`
	LogLevel        slog.Level     `name:"log-level" env:"NEUROSCREEN_LOG_LEVEL" default:"INFO" help:"DEBUG, INFO, WARN or ERROR."`
}

// Validate is called by kong.
func (s *Server) Validate() error {
	if (s.TLSCert == "") != (s.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if s.Lease < time.Second {
		return errors.New("--lease must be at least 1s")
	}
	if s.KeepDays < 0 {
		return errors.New("--keep-scan-days must not be negative")
	}
	if s.OIDCIssuer != "" && (s.OIDCClient == "" || s.PublicURL == "") {
		return errors.New("--oidc-issuer needs --oidc-client and --public-url")
	}
	if s.Workers < 1 {
		return errors.New("--workers must be at least 1")
	}
	if s.MaxUpload < 1<<10 || s.MaxImage < 1<<10 {
		return errors.New("--max-upload and --max-image must be at least 1KiB")
	}
	return nil
}

// Secret is a setting that is never printed.
type Secret string

const hidden = "[secret]"

// Reveal returns the value, for use and not for logs.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

func (s Secret) GoString() string             { return s.String() }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }

// Bytes is a size such as 512MiB.
type Bytes int64

var units = []struct {
	suffix string
	factor int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1}}

func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		var n int64
		var rest string
		if c, _ := fmt.Sscanf(strings.TrimSpace(number), "%d%s", &n, &rest); c != 1 || n < 0 || n > (1<<62)/u.factor {
			break
		}
		*b = Bytes(n * u.factor)
		return nil
	}
	return fmt.Errorf("%q is not a size such as 512MiB", s)
}

var _ encoding.TextUnmarshaler = (*Bytes)(nil)

// Options make kong read this package's settings.
func Options() []kong.Option {
	return []kong.Option{
		kong.Vars{"data": DefaultData()},
		kong.Resolvers(kong.ResolverFunc(secretFile)),
	}
}

// DefaultData is /var/lib/neuroscreen for root: the private cluster runs as
// another user, who can't reach into root's home.
func DefaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/neuroscreen"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "neuroscreen")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "neuroscreen")
	}
	return "neuroscreen-data"
}

// secretFile resolves NAME_FILE for flags of type Secret.
func secretFile(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if flag.Target.Type() != reflect.TypeFor[Secret]() {
		return nil, nil
	}
	for _, env := range flag.Envs {
		path := os.Getenv(env + "_FILE")
		if path == "" {
			continue
		}
		if os.Getenv(env) != "" {
			return nil, fmt.Errorf("both %s and %s_FILE are set; keep one", env, env)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s_FILE: %w", env, err)
		}
		return strings.TrimRight(string(data), "\r\n"), nil
	}
	return nil, nil
}

// Row is one setting, for the documentation.
type Row struct {
	Flag, Env, Default, Kind, Help string
	Secret                         bool
}

// Table lists all settings of the server in their order.
func Table() []Row { return rows(reflect.TypeFor[Server]()) }

func rows(t reflect.Type) []Row {
	var out []Row
	for n := range t.NumField() {
		f := t.Field(n)
		if f.Anonymous {
			out = append(out, rows(f.Type)...)
			continue
		}
		out = append(out, Row{
			Flag: "--" + f.Tag.Get("name"), Env: f.Tag.Get("env"), Default: f.Tag.Get("default"),
			Kind: f.Type.String(), Help: f.Tag.Get("help"), Secret: f.Type == reflect.TypeFor[Secret](),
		})
	}
	return out
}
