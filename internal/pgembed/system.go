package pgembed

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// install is the way out of missing binaries.
const install = "install the server's package (Debian, Ubuntu: first put `create_main_cluster = false` into " +
	"/etc/postgresql-common/createcluster.conf so that no cluster starts on port 5432, then `apt-get install postgresql`), " +
	"or set DATABASE_URL to use a server of your own"

// defaultBinDirs: Debian and Ubuntu, Red Hat, and Homebrew or self-built.
var defaultBinDirs = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"}

// findBinaries returns the folder with initdb and postgres: the newest, or
// the one of the cluster's major version.
func findBinaries(data string, patterns []string) (string, error) {
	if patterns == nil {
		patterns = defaultBinDirs
	}
	found := map[int]string{}
	for _, pattern := range patterns {
		dirs, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, dir := range dirs {
			if major, ok := majorOf(dir); ok && found[major] == "" {
				found[major] = dir
			}
		}
	}
	have := slices.Sorted(maps.Keys(found))

	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if len(have) == 0 {
			return "", fmt.Errorf("no Postgres server (initdb, postgres) in %s: %s", strings.Join(patterns, ", "), install)
		}
		return found[have[len(have)-1]], nil
	}
	if err != nil {
		return "", err
	}
	want, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return "", fmt.Errorf("%s/PG_VERSION is not a version number: %q", data, b)
	}
	if dir := found[want]; dir != "" {
		return dir, nil
	}
	return "", fmt.Errorf("the cluster in %s was made by Postgres %d, but installed is %s; install Postgres %d (Debian, Ubuntu: `apt-get install postgresql-%d`), "+
		"or move the data to the new version with pg_upgrade or pg_dump, or set DATABASE_URL", data, want, versions(have), want, want)
}

func versions(v []int) string {
	if len(v) == 0 {
		return "none"
	}
	s := strings.Trim(fmt.Sprint(v), "[]")
	return strings.ReplaceAll(s, " ", ", ")
}

// majorOf asks the folder's path for the version, which Debian and Red Hat
// put there, and the installed catalogue otherwise.
func majorOf(dir string) (int, bool) {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			return 0, false
		}
	}
	parent := strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "pgsql-")
	if major, err := strconv.Atoi(parent); err == nil {
		return major, true
	}
	return askVersion(filepath.Join(dir, "postgres"))
}

// account that Postgres runs as.
type account struct {
	uid, gid uint32
	other    bool // not the current user: we are root
	name     string
}

// databaseAccount is the current user, or as root the first of neuroscreen,
// postgres and nobody that exists.
func databaseAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	for _, name := range []string{"neuroscreen", "postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return account{uid: uint32(uid), gid: uint32(gid), other: true, name: name}, nil
		}
	}
	return account{}, errors.New("Postgres refuses to run as root and there is no user neuroscreen, postgres or nobody: make one with `useradd --system neuroscreen`")
}

func (a account) sysProcAttr() *syscall.SysProcAttr {
	if !a.other {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
}

// mkdir makes a folder, mode 0700, that belongs to the account.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return a.chown(path)
}

// write replaces a file, mode 0600, that belongs to the account.
func (a account) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return a.chown(path)
}

func (a account) chown(path string) error {
	if !a.other {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}

// traversable checks that every folder above lets any user pass.
func traversable(dir string) error {
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("Postgres runs as another user than root and cannot pass through %s (mode %v): `chmod o+x %s`, or choose another data folder such as /var/lib/neuroscreen", p, info.Mode().Perm(), p)
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// maxSocketPath is sizeof(sockaddr_un.sun_path) less the final zero.
const maxSocketPath = 107

// socketDir is run/ beside the cluster, or, when the socket's path would be
// too long there, a folder of the account's own under /tmp.
func (c *Cluster) socketDir() (string, error) {
	dir := filepath.Join(c.opts.Dir, "run")
	if len(filepath.Join(dir, ".s.PGSQL."+port)) > maxSocketPath {
		// The name follows from the data folder, so that every process that
		// shares the cluster finds the same.
		dir = shortDir(c.opts.Dir)
	}
	err := c.owner.mkdir(dir)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	// Somebody else's folder in /tmp would hand them our connections.
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || st.Uid != c.owner.uid || info.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s must be a folder of mode 0700 that belongs to user %d: remove it and start again", dir, c.owner.uid)
	}
	return dir, nil
}

// askVersion runs `postgres --version`.
func askVersion(postgres string) (int, bool) {
	cmd := exec.Command(postgres, "--version")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return 0, false
	}
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		return 0, false
	}
	major, err := strconv.Atoi(string(m[1]))
	return major, err == nil
}

var versionPattern = regexp.MustCompile(`PostgreSQL\) (\d+)`)

func shortDir(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join("/tmp", "neuroscreen-"+hex.EncodeToString(sum[:6]))
}
