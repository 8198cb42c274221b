// Package api holds the HTTP contract. The server and the client are generated from it, requests and (in
// tests) responses are validated against it, and the service hands it out.
package api

import _ "embed"

// Contract is openapi.yaml.
//
//go:embed openapi.yaml
var Contract []byte
