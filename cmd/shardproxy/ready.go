package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// exitNotReady is the exit code of ready when clients should not be sent there.
const exitNotReady = 1

// answerBytesMax bounds what is read of an answer: a line for each condition.
const answerBytesMax = 64 << 10

// readyCommand asks a running proxy whether it is ready: for health checks in
// containers, which have no program that speaks HTTP.
func readyCommand() *cobra.Command {
	var path, address string
	var timeout time.Duration
	c := &cobra.Command{
		Use: "ready", Short: "Ask a running proxy whether it is ready for clients", Args: cobra.NoArgs,
		Long: "Ready asks the admin address for /readyz. Exit code 0: ready, 1: not, or no answer; the reason is printed.\n\n" +
			"With --address the configuration is not read: a check that runs every few seconds should not\n" +
			"fail because the file is being edited.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return errors.New("--timeout must be more than 0")
			}
			if !cmd.Flags().Changed("address") {
				cfg, err := load(path)
				if err != nil {
					return &exitError{exitNotReady, err.Error()}
				}
				if address = cfg.Admin.Address; address == "" {
					return &exitError{exitNotReady, "the configuration has no admin.address: the proxy answers no such question"}
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := askReady(ctx, address); err != nil {
				return &exitError{exitNotReady, err.Error()}
			}
			fmt.Fprintln(cmd.OutOrStdout(), "ready")
			return nil
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "shardproxy.yaml", "configuration file, for admin.address")
	c.Flags().StringVar(&address, "address", "", "host:port to ask, in place of the configuration's admin.address")
	c.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "for all of it")
	return c
}

// askReady returns nil when the proxy at the address says that it is ready, else
// the reason. It may be called again.
func askReady(ctx context.Context, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if port == "0" {
		return fmt.Errorf("%s: port 0 is another one at each start; give --address", address)
	}
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(ownHost(host), port), Path: "/readyz"}
	res, err := getReady(ctx, u.String())
	if err == nil && res.StatusCode == http.StatusBadRequest {
		// net/http's answer to who speaks without TLS to a listener that has it.
		_ = res.Body.Close()
		u.Scheme = "https"
		res, err = getReady(ctx, u.String())
	}
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: no answer in time", u.Host)
		}
		return fmt.Errorf("%s: %w", u.Host, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerBytesMax))
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: no whole answer in time", u.Host)
	case err != nil:
		return fmt.Errorf("%s: %w", u.Host, err)
	case res.StatusCode == http.StatusOK && strings.TrimSpace(string(body)) == "ready":
		return nil
	case res.StatusCode == http.StatusOK:
		return fmt.Errorf("%s: what answers is not shardproxy", u.Host)
	}
	if reasons := unmet(string(body)); len(reasons) > 0 {
		return fmt.Errorf("not ready: %s", strings.Join(reasons, "; "))
	}
	return fmt.Errorf("%s: %s", u.Host, res.Status)
}

// getReady asks. An HTTP proxy of the environment is not asked: what it says of
// a local address is not about this process. Nor is a redirection followed, and
// no certificate looked at: nothing secret is said, and the name is seldom that
// of the certificate.
func getReady(ctx context.Context, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	return (&http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}).RoundTrip(req)
}

// ownHost is where this machine reaches what listens on host: on every interface
// means on the loopback one too.
func ownHost(host string) string {
	if host == "" || host == "*" {
		return "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil || !ip.IsUnspecified():
		return host
	case ip.Is4():
		return "127.0.0.1"
	default:
		return "::1"
	}
}

// unmet returns the conditions that an answer of /readyz says are not met.
func unmet(body string) (reasons []string) {
	for s := bufio.NewScanner(strings.NewReader(body)); s.Scan(); {
		if reason, ok := strings.CutPrefix(s.Text(), "[-] "); ok {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}
