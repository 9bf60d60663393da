package drivertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"shardproxy/internal/clientrun"
)

// startProxy builds the program, writes its configuration and starts it. It
// returns when the proxy says that it is ready.
func (s *stage) startProxy(ctx context.Context) error {
	binary, err := clientrun.Build(ctx, s.dir)
	if err != nil {
		return err
	}
	ports, err := clientrun.FreePorts(2)
	if err != nil {
		return err
	}
	s.port = ports[0]
	admin := fmt.Sprintf("127.0.0.1:%d", ports[1])
	file := filepath.Join(s.dir, "shardproxy.yaml")
	config, err := s.configuration(s.port, admin)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	s.proxy, err = clientrun.Start(ctx, binary, file, admin)
	return err
}

// configuration is one a user would write for this cluster. The pools are
// small, so that clients have to share server connections.
func (s *stage) configuration(port int, admin string) (string, error) {
	certificate, key, err := s.cluster.TLS().Issue("proxy")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {address: \"127.0.0.1:%d\", tls: {certificate: %s, key: %s}}\n", port, certificate, key)
	fmt.Fprintf(&b, "admin: {address: %q}\n", admin)
	fmt.Fprintf(&b, "users:\n  - {name: app, password: app-secret}\ndatabases:\n")
	var nodes []string
	for _, n := range s.cluster.Nodes() {
		nodes = append(nodes, fmt.Sprintf("%q", n.Addr()))
	}
	for _, name := range clients {
		fmt.Fprintf(&b, "  %s:\n    shards: [{name: s0, nodes: [%s]}]\n", name, strings.Join(nodes, ", "))
		fmt.Fprintf(&b, "    server: {tls: {mode: verify-full, ca: %s}}\n", s.cluster.TLS().CAFile)
		fmt.Fprintf(&b, "    pool: {mode: transaction, size: 4}\n")
	}
	return b.String(), nil
}
