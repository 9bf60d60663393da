package main

import (
	"context"
	"slices"
	"strings"

	"shardproxy/failover"
)

// plainProber words the errors of a prober for those who read them on the
// console and the dashboard: on one line, and without the name of the role
// that the proxy's own connections log in as.
type plainProber struct {
	failover.Prober
	user string
}

// Probe implements failover.Prober.
func (p plainProber) Probe(ctx context.Context, n failover.NodeID) (failover.Observation, error) {
	o, err := p.Prober.Probe(ctx, n)
	return o, p.plain(err)
}

// Watch implements failover.Prober.
func (p plainProber) Watch(ctx context.Context, n failover.NodeID) error {
	return p.plain(p.Prober.Watch(ctx, n))
}

func (p plainProber) plain(err error) error {
	if err == nil {
		return nil
	}
	return &plainError{err: err, text: plainText(err.Error(), p.user)}
}

// plainError says what err says in other words.
type plainError struct {
	err  error
	text string
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }

// plainText rewords an error of a connection as user. pgconn begins with the
// user and the database, and adds a line for each way that it tried, with TLS
// and without.
func plainText(text, user string) string {
	text = strings.TrimPrefix(text, "failover: ")
	if before, rest, ok := strings.Cut(text, "failed to connect to `"); ok {
		if _, ways, ok := strings.Cut(rest, "`:"); ok {
			text = before + ways
		}
	}
	var lines []string
	for line := range strings.Lines(text) {
		line = strings.Join(strings.Fields(line), " ")
		if line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if len(lines) > 1 && strings.HasSuffix(lines[0], ":") {
		lines = append([]string{lines[0] + " " + lines[1]}, lines[2:]...)
	}
	if user == "" {
		return strings.Join(lines, "; ")
	}
	const instead = "the control user"
	// In whatever language the server speaks, the name is in quotes.
	return strings.NewReplacer(
		`user "`+user+`"`, instead, `role "`+user+`"`, instead,
		`"`+user+`"`, instead, "«"+user+"»", instead, "« "+user+" »", instead, "„"+user+"“", instead, "'"+user+"'", instead,
	).Replace(strings.Join(lines, "; "))
}
