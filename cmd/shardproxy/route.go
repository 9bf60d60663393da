package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/shardmap"
)

// Where route takes the slot map from.
const (
	mapOfDump   = "dump"
	mapProposed = "proposed"
	mapNone     = "none"
)

// routeFlags are the flags of route.
type routeFlags struct {
	config, database, file, dump, slots string
	searchPath, role                    string
	json, strict                        bool
}

func routeCommand() *cobra.Command {
	var f routeFlags
	c := &cobra.Command{
		Use:   "route [statement ...]",
		Short: "Say where statements go, or why they are refused, without a server",
		Long: "Route plans the statements of its arguments, of a file or of standard input as run\n" +
			"would, by the configuration and a dump of the catalog (see catalog). It runs nothing\n" +
			"and asks no server. Exit code 0: done, 1: refused statements under --strict, 2: the\n" +
			"configuration or the dump does not do.",
		RunE: func(cmd *cobra.Command, statements []string) error {
			e, err := f.explainer(cmd)
			if err != nil {
				return err
			}
			refused, err := e.all(cmd, f.file, statements)
			if err != nil {
				return err
			}
			if f.strict && refused > 0 {
				return &exitError{1, fmt.Sprintf("%d statements are refused", refused)}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&f.config, "config", "c", "shardproxy.yaml", "configuration file")
	c.Flags().StringVar(&f.database, "database", "", "database of the configuration; needed when it has several")
	c.Flags().StringVarP(&f.file, "file", "f", "", "file of statements; - is standard input")
	c.Flags().StringVar(&f.dump, "catalog", "", "dump that catalog has written; needed for several shards")
	c.Flags().StringVar(&f.slots, "shard-map", mapOfDump, "slot map: that of the dump, the one that init would make (proposed), or none")
	c.Flags().StringVar(&f.searchPath, "search-path", `"$user", public`, "search_path of the session")
	c.Flags().StringVar(&f.role, "role", "", "role of the session")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object for each statement")
	c.Flags().BoolVar(&f.strict, "strict", false, "exit with code 1 when a statement is refused")
	return c
}

// routeExplainer plans statements without a server.
type routeExplainer struct {
	router *router.Router
	ctx    router.Context
	shards []string
	owners *router.Owners
	json   bool
	normal query.Normal
}

// explainer reads the files that planning depends on.
func (f *routeFlags) explainer(cmd *cobra.Command) (*routeExplainer, error) {
	cfg, conf, err := databaseOf(cmd, f.config, f.database)
	if err != nil {
		return nil, err
	}
	e := &routeExplainer{json: f.json, ctx: router.Context{SearchPath: f.searchPath, Role: f.role}}
	for i := range conf.Shards {
		e.shards = append(e.shards, conf.Shards[i].Name)
	}
	opts := router.Options{ReadOnlyFunctions: conf.Reads.ReadOnlyFunctions, MaxTextBytes: int(cfg.Limits.ParsedStatement)}
	if len(conf.Shards) > 1 {
		opts.Rules = conf
	}
	if err := f.fromDump(cmd.Context(), e, conf, &opts); err != nil {
		return nil, &exitError{exitProblems, err.Error()}
	}
	e.router = router.New(opts)
	return e, nil
}

// fromDump adds the catalog and the slot map.
func (f *routeFlags) fromDump(ctx context.Context, e *routeExplainer, conf *config.Database, opts *router.Options) error {
	var d *databaseDump
	switch {
	case f.dump != "":
		var err error
		if d, err = openDump(f.dump, conf.Name); err != nil {
			return err
		}
		var c *catalog.Catalog
		if c, err = d.Catalog.Catalog(ctx); err != nil {
			return fmt.Errorf("%s: %w", f.dump, err)
		}
		opts.Catalog = func() *catalog.Catalog { return c }
	case len(conf.Shards) > 1:
		return errors.New("a database of several shards needs --catalog: see shardproxy catalog")
	}
	if len(conf.Shards) == 1 {
		return nil
	}
	m, err := f.slotMap(conf, d)
	if err != nil || m == nil {
		return err
	}
	var ok bool
	if e.owners, ok = router.NewOwners(m, e.shards); !ok {
		return fmt.Errorf("the slot map has the shards %s, the configuration has %s", strings.Join(m.Shards(), ", "), strings.Join(e.shards, ", "))
	}
	return nil
}

// slotMap returns the map that is asked for, nil for none.
func (f *routeFlags) slotMap(conf *config.Database, d *databaseDump) (*shardmap.Map, error) {
	switch f.slots {
	case mapNone:
		return nil, nil
	case mapProposed:
		slots := conf.Slots
		if slots == 0 {
			slots = shardmap.DefaultSlots
		}
		var members []shardmap.Member
		for i := range conf.Shards {
			members = append(members, shardmap.Member{Name: conf.Shards[i].Name})
		}
		return shardmap.Propose(members, slots)
	case mapOfDump:
		if d.Slots == nil {
			return nil, errors.New("the dump has no slot map: use --shard-map proposed or none")
		}
		return d.Slots.load()
	}
	return nil, fmt.Errorf("--shard-map %q is none of dump, proposed and none", f.slots)
}

// routed is what is printed of one statement.
type routed struct {
	File      string        `json:"file,omitempty"`
	Line      int           `json:"line"`
	Statement string        `json:"statement"`
	Route     *router.Route `json:"route"`
}

// all explains the statements of the arguments and of the file, and counts those that
// are refused.
func (e *routeExplainer) all(cmd *cobra.Command, file string, statements []string) (refused int, err error) {
	for _, sql := range statements {
		n, err := e.text(cmd.OutOrStdout(), "", []byte(sql))
		if refused += n; err != nil {
			return refused, err
		}
	}
	if file == "" && len(statements) > 0 {
		return refused, nil
	}
	var text []byte
	if file == "" || file == "-" {
		file = ""
		text, err = io.ReadAll(cmd.InOrStdin())
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return refused, err
	}
	n, err := e.text(cmd.OutOrStdout(), file, text)
	return refused + n, err
}

// text explains each statement of a text.
func (e *routeExplainer) text(w io.Writer, file string, text []byte) (refused int, err error) {
	line, at := 1, 0
	for _, span := range query.Split(text) {
		line += bytes.Count(text[at:span.Start], []byte("\n"))
		at = int(span.Start)
		r := routed{File: file, Line: line, Statement: string(text[span.Start:span.End]), Route: e.route(text[span.Start:span.End])}
		if r.Route.Refusal != nil {
			refused++
		}
		if err := e.print(w, &r); err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// route plans one statement; of an EXPLAIN (ROUTE), that behind it.
func (e *routeExplainer) route(sql []byte) *router.Route {
	p := e.router.Plan(sql, e.ctx)
	if o := p.Explain(); o != nil && o.Route {
		sql = sql[o.Start:]
		p = e.router.Plan(sql, e.ctx)
	}
	e.normal.Scan(sql)
	v := &router.Values{Text: sql, Literals: e.normal.Literals, Standard: true}
	in := router.RouteInput{Shards: e.shards, Owners: e.owners, Values: v}
	if p.Scatters() {
		in.Scatter, _ = e.router.Scatter(string(sql), e.ctx, router.ScatterOptions{}) // a plan that scatters has a way
	}
	return p.Route(in)
}

func (e *routeExplainer) print(w io.Writer, r *routed) error {
	if e.json {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	}
	place := ""
	if r.File != "" {
		place = fmt.Sprintf("%s:%d: ", r.File, r.Line)
	}
	_, err := fmt.Fprintf(w, "%s%s\n  %s\n", place, shortened(r.Statement), strings.Join(r.Route.Lines(), "\n  "))
	return err
}

// shortened is a statement in one line that fits a screen.
func shortened(sql string) string {
	const long = 160
	s := strings.Join(strings.Fields(sql), " ")
	if r := []rune(s); len(r) > long {
		s = string(r[:long]) + "..."
	}
	return s
}
