package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

func parse(t *testing.T, args ...string) (Server, error) {
	t.Helper()
	var cfg Server
	k, err := kong.New(&cfg, append(Options(), kong.Name("test"))...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Parse(args)
	return cfg, err
}

// clearEnv hides settings of the machine that runs the test.
func clearEnv(t *testing.T) {
	for _, r := range Table() {
		for _, name := range []string{r.Env, r.Env + "_FILE"} {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
}

func TestDefaults(t *testing.T) {
	clearEnv(t)
	cfg, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Role != "both" || cfg.Listen != "127.0.0.1:8080" || cfg.Data != DefaultData() || cfg.DatabaseURL != "" ||
		cfg.MaxUpload != 1<<30 || cfg.MaxImage != 4<<30 || cfg.BodyIdle != 30*time.Second || cfg.LogLevel != slog.LevelInfo {
		t.Errorf("defaults: %+v", cfg)
	}
}

func TestOrderOfSources(t *testing.T) {
	clearEnv(t)
	t.Setenv("NEUROSCREEN_LISTEN", ":9000")
	t.Setenv("NEUROSCREEN_MAX_UPLOAD", "5MB")
	cfg, err := parse(t, "--listen=:9001")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Listen != ":9001" || cfg.MaxUpload != 5e6 {
		t.Errorf("listen %q, max upload %d: the flag wins over the environment, that over the default", cfg.Listen, cfg.MaxUpload)
	}
}

func TestSecretFromFile(t *testing.T) {
	clearEnv(t)
	path := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(path, []byte("postgres://u:pw@h/db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DATABASE_URL_FILE", path)
	cfg, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.DatabaseURL.Reveal(); got != "postgres://u:pw@h/db" {
		t.Errorf("from the file: %q", got)
	}
	shown, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.DatabaseURL), string(shown)} {
		if strings.Contains(s, "pw") {
			t.Errorf("the secret shows: %s", s)
		}
	}

	t.Setenv("DATABASE_URL", "postgres://other")
	if _, err := parse(t); err == nil {
		t.Error("DATABASE_URL and DATABASE_URL_FILE together were accepted")
	}
	t.Setenv("DATABASE_URL", "")
	t.Setenv("DATABASE_URL_FILE", path+".missing")
	if _, err := parse(t); err == nil {
		t.Error("a missing file was accepted")
	}
}

func TestRefused(t *testing.T) {
	clearEnv(t)
	for name, args := range map[string][]string{
		"unknown role":         {"--role=boss"},
		"no size":              {"--max-upload=much"},
		"two units":            {"--max-upload=5 MB MB"},
		"overflowing size":     {"--max-upload=9999999999999GiB"},
		"size of nothing":      {"--max-upload=0"},
		"certificate alone":    {"--tls-cert=a.pem"},
		"no workers":           {"--workers=0"},
		"unknown flag":         {"--listne=:1"},
		"level of another log": {"--log-level=loud"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(t, args...); err == nil {
				t.Errorf("%v was accepted", args)
			}
		})
	}
}

func TestEverySettingIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Table() {
		if r.Flag == "--" || r.Env == "" || r.Help == "" {
			t.Errorf("incomplete: %+v", r)
		}
		if seen[r.Flag] || seen[r.Env] {
			t.Errorf("twice: %+v", r)
		}
		seen[r.Flag], seen[r.Env] = true, true
	}
	if len(seen) < 10 {
		t.Errorf("only %d names", len(seen))
	}
}
