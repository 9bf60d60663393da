package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options is what the command line says.
type options struct {
	proxy       string // path of the proxy's program
	before      string // path of an earlier build of it to compare with; "" for none
	pgbouncer   string // path of PgBouncer's program; "" for the one that is installed
	out         string // document to write the tables into; "" for none
	rounds      int
	each        time.Duration // length of one run of one side
	scale       int           // of pgbench's tables
	modes       []string      // of pgbench
	clients     []int
	idle        []int // numbers of idle clients
	cold        int   // clients that come at once
	rateClients []int // numbers of clients at the fixed rate
	storm       int   // logins a second
	features    []string
	// featureClients are numbers of clients.
	featureClients []int
	shardClients   []int // numbers of clients of the keyed statements
	settle         time.Duration
	parts          []string
	serverConns    int
	replicas       int // of the side that splits reads; without any there is no such side
	serve          bool
}

// parseOptions reads the command line; usage goes to w.
func parseOptions(args []string, w io.Writer) (options, error) {
	o := options{serverConns: 20}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(w)
	f.StringVar(&o.proxy, "proxy", "bin/shardproxy", "the proxy's program")
	f.StringVar(&o.before, "before", "", "an earlier build of the program, measured in the same rounds; none when empty")
	f.StringVar(&o.pgbouncer, "pgbouncer", "", "PgBouncer's program; the one that is installed when empty")
	f.StringVar(&o.out, "out", "", "document whose table is replaced; none when empty")
	f.IntVar(&o.rounds, "rounds", 5, "rounds; medians are taken over them")
	f.DurationVar(&o.each, "each", 2*time.Second, "length of one run of one side; from 1s on whole seconds where pgbench runs")
	f.IntVar(&o.scale, "scale", 10, "scale of pgbench's tables")
	f.IntVar(&o.cold, "cold", 1000, "clients that come at once")
	f.IntVar(&o.storm, "storm", 300, "logins a second while established sessions are watched")
	f.DurationVar(&o.settle, "settle", 2*time.Second, "wait before resident memory is read")
	f.IntVar(&o.replicas, "replicas", 2, "replicas of the side that splits reads; 0 for no such side")
	f.BoolVar(&o.serve, "serve", false, "start everything and measure nothing, until Ctrl-C")
	modes := f.String("modes", "simple,extended,prepared", "pgbench's query modes")
	clients := f.String("clients", "1,8,32,64", "numbers of clients")
	idle := f.String("idle", "1000,5000", "numbers of idle clients")
	rateClients := f.String("rate-clients", "8,32", "numbers of clients at the fixed rate")
	features := f.String("features", strings.Join(featureNames(), ","), "features whose cost is measured; those that split reads need replicas")
	featureClients := f.String("feature-clients", "8", "numbers of clients of the features")
	shardClients := f.String("shard-clients", "8,32", "numbers of clients of the keyed statements")
	parts := f.String("parts", strings.Join(allParts(), ","), "what is measured")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	var err error
	if o.clients, err = numbers(*clients); err != nil {
		return o, fmt.Errorf("-clients: %w", err)
	}
	if o.idle, err = numbers(*idle); err != nil {
		return o, fmt.Errorf("-idle: %w", err)
	}
	if o.rateClients, err = numbers(*rateClients); err != nil {
		return o, fmt.Errorf("-rate-clients: %w", err)
	}
	if o.featureClients, err = numbers(*featureClients); err != nil {
		return o, fmt.Errorf("-feature-clients: %w", err)
	}
	if o.shardClients, err = numbers(*shardClients); err != nil {
		return o, fmt.Errorf("-shard-clients: %w", err)
	}
	if o.features, err = words(*features, featureNames()); err != nil {
		return o, fmt.Errorf("-features: %w", err)
	}
	if o.modes, err = words(*modes, []string{"simple", "extended", "prepared"}); err != nil {
		return o, fmt.Errorf("-modes: %w", err)
	}
	if o.parts, err = words(*parts, allParts()); err != nil {
		return o, fmt.Errorf("-parts: %w", err)
	}
	return o, o.check()
}

// allParts names what can be measured.
func allParts() []string {
	return []string{"statements", "features", "rate", "storm", "bulk", "shards", "moves", "cold", "idle"}
}

func (o options) check() error {
	for _, c := range []struct {
		name  string
		value int
	}{{"rounds", o.rounds}, {"scale", o.scale}, {"cold", o.cold}, {"storm", o.storm}} {
		if c.value < 1 {
			return fmt.Errorf("-%s must be at least 1", c.name)
		}
	}
	if o.replicas < 0 {
		return fmt.Errorf("-replicas must not be negative")
	}
	if o.each < 100*time.Millisecond {
		return fmt.Errorf("-each must be at least 100ms")
	}
	return nil
}

func (o options) wants(part string) bool { return slices.Contains(o.parts, part) }

// numbers reads a list of positive numbers.
func numbers(list string) ([]int, error) {
	var ns []int
	for _, field := range strings.Split(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no positive number", field)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

// words reads a list of words of a set.
func words(list string, set []string) ([]string, error) {
	var ws []string
	for _, field := range strings.Split(list, ",") {
		w := strings.TrimSpace(field)
		if !slices.Contains(set, w) {
			return nil, fmt.Errorf("%q is none of %s", w, strings.Join(set, ", "))
		}
		ws = append(ws, w)
	}
	return ws, nil
}
