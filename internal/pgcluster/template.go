package pgcluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// The roles of every cluster. They are no secrets: the servers listen on
// loopback and hold throw-away data.
const (
	Superuser         = "postgres"
	SuperuserPassword = "postgres-secret"
	AppUser           = "app"
	AppPassword       = "app-secret"
	AppDatabase       = "app" // owned by AppUser
)

// templateStatements run once in a new template.
func templateStatements() []string {
	return []string{
		"ALTER ROLE postgres PASSWORD '" + SuperuserPassword + "'",
		"CREATE ROLE app LOGIN PASSWORD '" + AppPassword + "'",
		"CREATE DATABASE app OWNER app",
	}
}

// walSegmentMB keeps copies small; the default is 16.
const walSegmentMB = "4"

// ensureTemplate returns the data directory to copy, after making it when it
// is not there. Processes that want it at the same time wait for the first.
func ensureTemplate(ctx context.Context, base string, a account, bin Binaries) (string, error) {
	recipe := sha256.Sum256([]byte(bin.Dir + bin.Version + strings.Join(templateStatements(), ";") + walSegmentMB))
	path := filepath.Join(base, fmt.Sprintf("template-%d-%x", bin.Major, recipe[:6]))
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	defer lock.Close()
	if err := errors.Join(a.own(lock.Name()), flock(lock, syscall.LOCK_EX)); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	building := path + ".new"
	if err := os.RemoveAll(building); err != nil { // of a process that died here
		return "", fmt.Errorf("template: %w", err)
	}
	if err := buildTemplate(ctx, base, building, a, bin); err != nil {
		return "", fmt.Errorf("template: %w", errors.Join(err, os.RemoveAll(building)))
	}
	if err := os.Rename(building, path); err != nil {
		return "", fmt.Errorf("template: %w", err)
	}
	return path, nil
}

// buildTemplate makes a data directory with our roles in dir.
func buildTemplate(ctx context.Context, base, dir string, a account, bin Binaries) error {
	initdb := func(locale string) error {
		return a.run(base, bin.Path("initdb"), "-D", dir, "-U", Superuser, "-E", "UTF8", "--locale="+locale,
			"--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", "--wal-segsize="+walSegmentMB)
	}
	if err := initdb("C.UTF-8"); err != nil { // not every C library has it
		if err := errors.Join(os.RemoveAll(dir), initdb("C")); err != nil {
			return err
		}
	}
	// No TCP port: nothing on this machine can be in the way.
	c := &Cluster{bin: bin, account: a, base: base, dir: dir + ".run", options: Options{Settings: map[string]string{"listen_addresses": ""}}}
	if err := errors.Join(os.RemoveAll(c.dir), a.mkdir(c.dir)); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	guard, err := startWatchdog(a, dir, c.dir)
	if err != nil {
		return err
	}
	defer guard.dismiss()
	n := &Node{cluster: c, name: "template", dataDir: dir, logFile: filepath.Join(c.dir, "log")}
	if err := n.start(ctx); err != nil {
		return err
	}
	err = n.withConn(ctx, "postgres", func(conn *pgx.Conn) error {
		for _, sql := range templateStatements() {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, n.Stop(ctx)); err != nil {
		return errors.Join(err, n.kill())
	}
	return nil
}

// copyTemplate copies the template to dataDir, as a clone where the file
// system can.
func copyTemplate(template, dataDir string, a account) error {
	return a.run(filepath.Dir(dataDir), "cp", "-Rp", template, dataDir)
}
