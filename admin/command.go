package admin

import (
	"context"
	"maps"
	"slices"
	"strings"

	"shardproxy/auth"
	"shardproxy/wire"
)

// privilege is what a command takes.
type privilege uint8

const (
	mayLook  privilege = iota // everybody who may connect
	mayRead                   // admin users only: what clients have sent
	maySteer                  // admin users only; logged
)

// heldBy reports whether the identity has the privilege.
func (p privilege) heldBy(id auth.Identity) bool {
	return id.Admin || id.Monitor && p == mayLook
}

// command is one command of the console. Its privilege stands here and nowhere else.
type command struct {
	name  string // SHOW POOLS, PAUSE
	usage string // what HELP and the manual print
	doc   string
	needs privilege
	// columns are those of the result; nil when there is none.
	columns []column
	// waits is set when the command may take long and is not wanted without its
	// client.
	waits bool
	run   func(ctx context.Context, s *session, r request) (result, *wire.Error)
}

// result is what a command that succeeded sends.
type result struct {
	tag      string
	rows     [][]any
	notice   *wire.Error
	reported []wire.Param // ParameterStatus messages
	// after runs when the client has been answered.
	after func()
}

// commands is the table of all commands.
type commands struct {
	all   []*command // in the order of the manual
	byKey map[string]*command
}

// key is how a request is looked up.
func (r request) key() string {
	switch r.verb {
	case "show":
		return "show " + strings.ToLower(r.name)
	case "explain":
		return "explain route"
	case "move":
		if r.plan != nil {
			return "move " + r.name
		}
	}
	return r.verb
}

// find returns the command of a request that is not empty.
func (c *commands) find(r request, sql string) (*command, *wire.Error) {
	if cmd := c.byKey[r.key()]; cmd != nil {
		return cmd, nil
	}
	return nil, invalidCommand(sql)
}

func (c *commands) add(cmd *command) {
	c.all = append(c.all, cmd)
	c.byKey[strings.ToLower(cmd.name)] = cmd
}

// newCommands builds the table.
func newCommands() *commands {
	c := &commands{byKey: map[string]*command{}}
	for _, v := range views() {
		c.add(v.command())
	}
	c.add(showPrepared())
	c.add(showHotKeys())
	c.add(explainRoute())
	c.add(resetQueries())
	c.add(resetCache())
	c.add(showFDs())
	c.add(&command{name: "SHOW HELP", usage: "SHOW HELP", doc: "Lists the commands, as a notice.", run: c.help})
	for _, cmd := range slices.Concat(steering(), planning(), blocking()) {
		c.add(cmd)
	}
	for _, cmd := range sessionCommands() {
		c.add(cmd)
	}
	defaults := defaultSettings()
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		c.byKey["show "+name] = showSetting(name, defaults[name])
	}
	return c
}

// help answers as PgBouncer does, with a notice.
func (c *commands) help(context.Context, *session, request) (result, *wire.Error) {
	var b strings.Builder
	for _, cmd := range c.all {
		b.WriteString("\n\t" + cmd.usage)
	}
	return result{tag: "SHOW", notice: &wire.Error{
		Severity: "NOTICE", Code: "00000", Message: "Console usage", Detail: b.String(),
	}}, nil
}
