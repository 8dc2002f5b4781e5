// A function in Go for provided.al2023, with the official runtime client.
//
//	CGO_ENABLED=0 go build -tags lambda.norpc -o bootstrap . && zip function.zip bootstrap
//	martlet deploy function.zip --name hello-go
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Name string `json:"name"`
	Fail bool   `json:"fail"`
}

type answer struct {
	Message   string `json:"message"`
	Function  string `json:"function"`
	RequestID string `json:"request_id"`
	Remaining int64  `json:"remaining_ms"`
}

func handle(ctx context.Context, in event) (answer, error) {
	if in.Fail {
		return answer{}, errors.New("asked to fail")
	}
	if in.Name == "" {
		in.Name = "world"
	}
	log.Printf("greeting %s", in.Name)
	known, _ := lambdacontext.FromContext(ctx)
	deadline, _ := ctx.Deadline()
	return answer{
		Message:   fmt.Sprintf("Hello, %s!", in.Name),
		Function:  lambdacontext.FunctionName,
		RequestID: known.AwsRequestID,
		Remaining: time.Until(deadline).Milliseconds(),
	}, nil
}

func main() {
	lambda.Start(handle)
}
