package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the ordinary user that servers run as.
type account struct {
	name     string // known when drop is set
	uid, gid int
	drop     bool // this process is root and must change to the account
}

// serverAccount returns the current user, or when that is root an ordinary one.
func serverAccount() (account, error) {
	if uid := os.Geteuid(); uid != 0 {
		return account{uid: uid, gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return account{name: name, uid: uid, gid: gid, drop: true}, nil
		}
	}
	return account{}, errors.New("running as root and no account \"postgres\" or \"nobody\" to drop to: PostgreSQL refuses to run as root")
}

// attr makes a child run as the account, in a session of its own so that a
// Ctrl-C at the terminal does not reach it before its owner could end it.
func (a account) attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a.drop {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// command prepares a program that runs as the account in dir. The environment
// is ours alone: PGPORT, PGDATA and the like must not steer our servers.
func (a account) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = a.attr()
	return cmd
}

// run runs a program to its end; the error carries its output.
func (a account) run(dir, program string, args ...string) error {
	out, err := a.command(dir, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", filepath.Base(program), err, out)
	}
	return nil
}

// mkdir makes a folder that belongs to the account and is closed to others.
func (a account) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if a.drop {
		return os.Lchown(path, a.uid, a.gid)
	}
	return nil
}

// writeFile writes a file that belongs to the account. Keys need mode 0600:
// PostgreSQL refuses any other.
func (a account) writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, content, mode); err != nil {
		return err
	}
	return a.own(path)
}

// own gives a file to the account.
func (a account) own(path string) error {
	if a.drop {
		return os.Lchown(path, a.uid, a.gid)
	}
	return nil
}

// baseDir makes and returns the folder under which everything lies: the
// template, the port locks and the clusters. It is in the system's temporary
// folder and not in a home folder because the dropped-to account must reach
// it, and its path is short because a socket's path may have 107 bytes only.
func (a account) baseDir(parent string) (string, error) {
	if parent == "" {
		parent = "/tmp"
	}
	parent, err := filepath.EvalSymlinks(parent)
	if err != nil {
		return "", fmt.Errorf("folder for clusters: %w", err)
	}
	base := filepath.Join(parent, fmt.Sprintf("shardproxy-pg-%d", a.uid))
	if err := os.Mkdir(base, 0o700); err == nil {
		return base, a.own(base)
	} else if !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("folder for clusters: %w", err)
	}
	// The temporary folder is open to all: what is already there is used only
	// when it is ours and closed to others.
	info, err := os.Lstat(base)
	if err != nil {
		return "", fmt.Errorf("folder for clusters: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is not a private folder: remove it", base)
	}
	// Root may have been interrupted, or be busy, between Mkdir and Lchown.
	if int(stat.Uid) == os.Geteuid() && a.drop {
		return base, a.own(base)
	}
	if int(stat.Uid) != a.uid {
		return "", fmt.Errorf("%s belongs to user %d, not %d: remove it", base, stat.Uid, a.uid)
	}
	return base, nil
}

// maxOwnFolder leaves room for a cluster's folder and a socket's name: the
// path of a socket may have 103 bytes on some systems.
const maxOwnFolder = 60

// OwnFolder makes a folder for a cluster of its own (Options.OwnParent), whose
// name begins with prefix. It is in the system's temporary folder, or in /tmp
// when the servers' account cannot reach that or its path is too long. Only the
// account and root can look into it.
func OwnFolder(prefix string) (string, error) {
	a, err := serverAccount()
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil || !a.reaches(parent) || len(parent)+len(prefix) > maxOwnFolder {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return "", err
	}
	if err := a.own(dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

// reaches reports whether the account may pass through every folder of the path.
func (a account) reaches(path string) bool {
	if !a.drop {
		return true
	}
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
	}
	return true
}
