package config

import (
	"net/url"
	"time"
)

// Tracing says which requests an OpenTelemetry collector is told of.
type Tracing struct {
	// Endpoint is the collector's URL for OTLP over HTTP, /v1/traces there unless it has a path. Default: none;
	// nobody is told of anything.
	Endpoint string `yaml:"endpoint"`
	// CA is the PEM file of the authorities that the collector's certificate is checked against. Default: none; the system's are taken.
	CA string `yaml:"ca" path:"true"`
	// Certificate and Key are PEM files of what the collector is shown; they are read for each handshake. Default: none.
	Certificate string `yaml:"certificate" path:"true"`
	// Key belongs to Certificate.
	Key string `yaml:"key" path:"true"`
	// Header is the name of the header that carries Token. Default: Authorization.
	Header string `yaml:"header" default:"Authorization"`
	// Token is what the header says, as a whole.
	Token Secret `yaml:"token"`
	// TokenFile holds Token; Load reads it into Token.
	TokenFile string `yaml:"token_file" path:"true"`
	// OneIn is of how many requests one is told of, by chance, among those that belong to no trace; 0: of none. Default: 100.
	OneIn int `yaml:"one_in" default:"100" min:"0" max:"1000000000"`
	// Parents has the trace found that a statement's comment names (traceparent='...'), and its word taken on what is
	// told of. Default: true.
	Parents bool `yaml:"parents" default:"true"`
	// Texts has statements told as a whole, without their values. Default: false.
	Texts bool `yaml:"texts" default:"false"`
	// Queue is how many requests may wait to be told of; more are dropped. Default: 5000.
	Queue int `yaml:"queue" default:"5000" min:"1" max:"1000000"`
	// Timeout bounds one message to the collector, tried more than once if need be. Default: 10 s.
	Timeout time.Duration `yaml:"timeout" default:"10s" min:"100ms" max:"5m"`
}

// tracing checks where spans go.
func (v *validator) tracing(t *Tracing) {
	v.password("tracing", "token", &t.Token, t.TokenFile)
	v.authorities("tracing.ca", t.CA)
	if (t.Certificate == "") != (t.Key == "") {
		v.add("tracing", "has one of certificate and key", "give both or none")
	}
	v.keyPair("tracing", t.Certificate, t.Key)
	if t.Endpoint == "" {
		return
	}
	u, err := url.Parse(t.Endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		v.add("tracing.endpoint", "is no http or https URL", "such as http://127.0.0.1:4318")
	case u.User != nil:
		v.add("tracing.endpoint", "holds a user", "give what the collector asks for as tracing.token")
	case u.Scheme == "http" && t.Certificate != "":
		v.add("tracing.endpoint", "is http, and there is a certificate", "a certificate is shown over https only")
	}
}
