package client

//go:generate go tool oapi-codegen -config ../../api/client.yaml ../../api/openapi.yaml
