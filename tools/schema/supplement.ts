import type { ProtobufFields } from './messages.ts';

/** Protobuf numbers of fields and messages that are newer than the field list. */
export const SUPPLEMENT: ProtobufFields = {};
