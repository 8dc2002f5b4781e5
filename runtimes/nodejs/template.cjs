'use strict';
// What a Node interpreter needs to become a template.
