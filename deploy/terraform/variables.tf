variable "project" {
  description = "Google Cloud project: BACKFILL_PROJECT"
  type        = string
}

variable "bucket" {
  description = "Name of the lake's bucket, unique in the world: BACKFILL_BUCKET"
  type        = string
}

variable "dataset" {
  description = "BigQuery data set: BACKFILL_DATASET"
  type        = string
  default     = "crypto_market_data"
}

variable "location" {
  description = "Location of bucket and data set, which must be the same for load jobs: BACKFILL_LOCATION"
  type        = string
  default     = "US"
}

variable "kubernetes_namespace" {
  description = "Namespace of the pods on GKE; empty: none"
  type        = string
  default     = ""
}
