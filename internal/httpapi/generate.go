package httpapi

//go:generate go tool oapi-codegen -config ../../api/server.yaml ../../api/openapi.yaml
