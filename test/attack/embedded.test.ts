import { attackSuite } from './suite.ts';
import { embeddedBackend } from './support/backends.ts';

attackSuite(() => Promise.resolve(embeddedBackend()));
