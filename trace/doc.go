// Package trace tells an OpenTelemetry collector what requests have done. A request is told of once it is over, as
// one span with a child for each of its steps; nothing is kept of those that are not sampled.
//
// Spans leave in batches by OTLP over HTTP, in protobuf: "OTLP Specification 1.x", sections "OTLP/HTTP Request" and "OTLP/HTTP
// Response". Their attributes are those of the semantic conventions for database spans (stable since 1.33), and ours, which
// begin with shardproxy. No value of a statement is among them.
//
// Send never blocks: what finds the queue full is dropped, and counted. A collector that hangs or is away costs nobody
// but those who look at traces.
package trace
